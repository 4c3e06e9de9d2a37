"""Pages of docs/ whose code runs as it is written."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from lightning_gancompress.cli import main

DOCS = Path(__file__).parents[1] / "docs"
COMMAND = ["python", "-m", "lightning_gancompress"]


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def run(page: str, folder: Path) -> dict[str, Any]:
    """Run all blocks in a folder, in order: files are written, commands and the rest are run.

    Returns:
        The names that the rest left behind.
    """
    names: dict[str, Any] = {"__name__": "notebook"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        for language, block in blocks(page):
            if file := re.match(r"# (\S+\.(?:py|yaml))\n", block):
                Path(file[1]).write_text(block)
            elif language == "python":
                exec(compile(block, page, "exec"), names)
            else:
                for line in block.splitlines():
                    words = shlex.split(line)
                    assert words[:3] == COMMAND
                    main(words[3:])
    return names
