"""How much memory a process may use."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

UNKNOWN = 4 * 2**30  # bytes; where the system does not tell


def available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that are free or can be freed, at most what a container or a batch job may have.

    Args:
        proc: The system's folder of processes.
        groups: Its folder of control groups, which limit containers and jobs.
    """
    return min([_free(proc / "meminfo"), *_limits(proc / "self" / "cgroup", groups)])


def _free(meminfo: Path) -> int:
    with suppress(OSError):
        if found := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()):
            return int(found[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN


def _limits(membership: Path, groups: Path) -> list[int]:
    """The limits of the process's control groups and of those around them, of either version."""
    found = []
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds not in ("", "memory"):
                continue
            top = groups / kinds
            group = top / path.lstrip("/")
            for folder in [group, *group.parents][: len(group.relative_to(top).parts) + 1]:
                for name in ("memory.max", "memory.limit_in_bytes"):
                    with suppress(OSError, ValueError):  # the text "max" is none
                        found.append(int((folder / name).read_text()))
    return found
