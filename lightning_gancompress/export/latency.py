"""Latency: how long one forward pass takes, alone or beside another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gancompress.export.onnx import load_onnx
from lightning_gancompress.networks import copy_network

Run = Callable[[], object]


@dataclass(frozen=True)
class Latency:
    """Milliseconds that a call took: median, tenth and ninetieth percentile over `repetitions` calls."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    repetitions: int

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Summarise measured times."""
        p10, median, p90 = (float(p) for p in np.percentile(seconds, [10, 50, 90]) * 1e3)
        return cls(median, p10, p90, len(seconds))


@dataclass(frozen=True)
class LatencyComparison:
    """Two calls measured in turn.

    Attributes:
        a: The first call's latency.
        b: The second's.
        ratio: Median over the pairs of a's time by b's: how many times faster `b` is.
        ratio_p10: Tenth percentile of that quotient.
        ratio_p90: Ninetieth percentile.
    """

    a: Latency
    b: Latency
    ratio: float
    ratio_p10: float
    ratio_p90: float


def measure_latency(run: Run, *, warmup: int = 3, repetitions: int = 20) -> Latency:
    """Time `run()`, which must have finished its work when it returns.

    Args:
        run: The call.
        warmup: Calls before the clock counts: caches fill, kernels are chosen.
        repetitions: Calls that count.
    """
    for _ in range(warmup):
        run()
    return Latency.of([_seconds(run) for _ in range(repetitions)])


def compare_latency(a: Run, b: Run, *, warmup: int = 3, repetitions: int = 20) -> LatencyComparison:
    """Time `a` and `b` in pairs, in alternating order.

    Clock speed and other load drift over seconds, but hit both calls of a pair alike: a ratio taken within
    each pair is free of them, where a ratio of two separate measurements is not.
    """
    for _ in range(warmup):
        a()
        b()
    times_a: list[float] = []
    times_b: list[float] = []
    for repetition in range(repetitions):
        pair = [(a, times_a), (b, times_b)]
        for run, times in pair if repetition % 2 == 0 else reversed(pair):
            times.append(_seconds(run))
    ratios = np.divide(times_a, times_b)
    p10, ratio, p90 = (float(p) for p in np.percentile(ratios, [10, 50, 90]))
    return LatencyComparison(Latency.of(times_a), Latency.of(times_b), ratio, p10, p90)


def torch_latency(
    network: nn.Module, sample: Tensor, threads: int = 1, *, warmup: int = 3, repetitions: int = 20
) -> Latency:
    """Latency of `network` in eval mode on `sample`, on the device where both lie."""
    with torch_threads(threads):
        return measure_latency(torch_run(network, sample), warmup=warmup, repetitions=repetitions)


def onnx_latency(
    path: str | Path, sample: Tensor, threads: int = 1, *, warmup: int = 3, repetitions: int = 20
) -> Latency:
    """Latency of an ONNX file on `sample` in ONNX Runtime on the CPU."""
    return measure_latency(onnx_run(path, sample, threads), warmup=warmup, repetitions=repetitions)


def torch_run(network: nn.Module, sample: Tensor) -> Run:
    """A call to be timed: one forward pass of a copy of `network` in eval mode, its work done on return."""
    network = copy_network(network).eval()

    def run() -> None:
        with torch.inference_mode():
            network(sample)
        if sample.is_cuda:
            torch.cuda.synchronize(sample.device)

    return run


def onnx_run(path: str | Path, sample: Tensor, threads: int = 1) -> Run:
    """A call to be timed: one pass of `sample` through an ONNX file."""
    run = load_onnx(path, threads)
    return lambda: run(sample)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run torch's operators on the CPU on that many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
