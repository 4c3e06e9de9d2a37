"""What the devices at hand are called, and compute natively."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 numbers itself; what it emulates is slower than float32.

    CUDA devices do from compute capability 8 on (A100, RTX 30), x86 CPUs with AVX512_BF16 or AMX. Of other
    devices nothing is known, which counts as no.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and not cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Names of the CPU's instruction sets, as Linux has them; none on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def device_name(device: str) -> str:
    """Model name of the GPU or CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
