"""Latency of forward passes, of one network or of two in comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gancompress.export.onnx import load_onnx
from lightning_gancompress.networks import copy_network
from lightning_gancompress.options import Count, CountOrNone, Threads, checked

Run = Callable[[], object]


@dataclass(frozen=True)
class Latency:
    """Duration of a call in milliseconds: median, 10th and 90th percentile over `repetitions` calls."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    repetitions: int

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Summarise measured durations in seconds."""
        p10, median, p90 = (float(p) for p in np.percentile(seconds, [10, 50, 90]) * 1e3)
        return cls(median, p10, p90, len(seconds))


@dataclass(frozen=True)
class LatencyComparison:
    """Latencies of two calls that were measured in turn.

    Attributes:
        a: Latency of the first call.
        b: Latency of the second call.
        ratio: Median over the pairs of the duration of `a` divided by that of `b`: the speed-up of `b`.
        ratio_p10: 10th percentile of that quotient.
        ratio_p90: 90th percentile of that quotient.
    """

    a: Latency
    b: Latency
    ratio: float
    ratio_p10: float
    ratio_p90: float


@checked
def measure_latency(run: Run, *, warmup: CountOrNone = 3, repetitions: Count = 20) -> Latency:
    """Time `run()`, which must have finished its work when it returns.

    Args:
        run: The function to time.
        warmup: Calls before the measurement, in which caches are filled and kernels chosen.
        repetitions: Timed calls.
    """
    for _ in range(warmup):
        run()
    return Latency.of([_seconds(run) for _ in range(repetitions)])


@checked
def compare_latency(
    a: Run,
    b: Run,
    *,
    warmup: CountOrNone = 3,
    repetitions: Count = 20,
    clock: Callable[[], float] | None = None,
) -> LatencyComparison:
    """Time `a` and `b` in pairs, in alternating order.

    Clock speed and other load change over seconds, and affect both calls of a pair equally. Ratios within
    pairs are therefore unaffected, other than ratios of separate measurements.

    Args:
        a: The first function to time, which must have finished its work when it returns.
        b: The second.
        warmup: Calls of each before the measurement.
        repetitions: Pairs of timed calls.
        clock: Returns seconds; None is `time.perf_counter`. `time.process_time` leaves out what other
            processes do meanwhile, and adds up threads.
    """
    return compare_times(*time_in_turn([a, b], warmup=warmup, repetitions=repetitions, clock=clock))


def time_in_turn(
    runs: Sequence[Run],
    *,
    warmup: int = 3,
    repetitions: int = 20,
    clock: Callable[[], float] | None = None,
) -> list[list[float]]:
    """Seconds of each call of several functions in rounds, whose order alternates; see `compare_latency`."""
    for _ in range(warmup):
        for run in runs:
            run()
    times: list[list[float]] = [[] for _ in runs]
    for repetition in range(repetitions):
        turn = list(zip(runs, times, strict=True))
        for run, own in turn if repetition % 2 == 0 else reversed(turn):
            own.append(_seconds(run, clock))
    return times


def compare_times(a: list[float], b: list[float]) -> LatencyComparison:
    """The comparison of two lists of seconds of `time_in_turn`."""
    p10, ratio, p90 = (float(p) for p in np.percentile(np.divide(a, b), [10, 50, 90]))
    return LatencyComparison(Latency.of(a), Latency.of(b), ratio, p10, p90)


@checked
def torch_latency(
    network: nn.Module,
    sample: Tensor,
    threads: Threads = 1,
    *,
    warmup: CountOrNone = 3,
    repetitions: Count = 20,
) -> Latency:
    """Latency of `network` in eval mode on `sample` (B, C, H, W), on the device of both."""
    with torch_threads(threads):
        return measure_latency(torch_run(network, sample), warmup=warmup, repetitions=repetitions)


@checked
def onnx_latency(
    path: str | Path,
    sample: Tensor,
    threads: Threads = 1,
    *,
    warmup: CountOrNone = 3,
    repetitions: Count = 20,
) -> Latency:
    """Latency of an ONNX file on `sample` in ONNX Runtime on the CPU."""
    return measure_latency(onnx_run(path, sample, threads), warmup=warmup, repetitions=repetitions)


def torch_run(network: nn.Module, sample: Tensor) -> Run:
    """A function to time: one forward pass of a copy of `network` in eval mode, synchronised on a GPU."""
    network = copy_network(network).eval()

    def run() -> None:
        with torch.inference_mode():
            network(sample)
        if sample.is_cuda:
            torch.cuda.synchronize(sample.device)

    return run


def onnx_run(path: str | Path, sample: Tensor, threads: Threads = 1) -> Run:
    """A function to time: one pass of `sample` through an ONNX file."""
    run = load_onnx(path, threads)
    return lambda: run(sample)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Context in which torch uses that many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(run: Run, clock: Callable[[], float] | None = None) -> float:
    clock = clock or time.perf_counter
    start = clock()
    run()
    return clock() - start
