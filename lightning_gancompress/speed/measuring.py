"""Measurement of what makes a generator faster on this machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.devices import device_name
from lightning_gancompress.errors import UserError
from lightning_gancompress.export import export_onnx, measure_latency, onnx_run, torch_run, torch_threads
from lightning_gancompress.export.latency import Run, compare_times, time_in_turn
from lightning_gancompress.export.program import inference_copy
from lightning_gancompress.networks import blank_image
from lightning_gancompress.packages import lacking
from lightning_gancompress.pruning import (
    ChannelGroups,
    MaskedCost,
    count_macs,
    fit_budget,
    layer_costs,
    slim,
)
from lightning_gancompress.speed.advice import LayerTime, SpeedAdvice, WidthTime

MULTIPLES = (1, 4, 8, 16)
BATCHES = (1, 4, 8)
LAYERS = 5
WARMUP, REPETITIONS = 2, 7


def measure_speed(
    whole: nn.Module | None,
    small: nn.Module | None,
    groups: ChannelGroups | None,
    size: int | tuple[int, int],
    budget: float,
) -> SpeedAdvice:
    """Time networks on the GPU if there is one, else in ONNX Runtime on the CPU, or in torch without that.

    Args:
        whole: The network that is compressed; None if it isn't at hand.
        small: The small network; None for one with random weights, cut to the budget.
        groups: Channel groups of the whole network; None if it can't be cut.
        size: Image size in pixels, or height and width.
        budget: MACs of the networks with random weights, relative to the whole one.

    Raises:
        UserError: There is no network.
    """
    networks = [net for net in (small, whole) if net is not None]
    if not networks:
        raise UserError("There is no network to time: give --ckpt_path.")
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        bench = _Bench(Path(folder))
        sample = torch.zeros(blank_image(networks[0], size).shape)  # as the copies are: float32, on the CPU
        cut = {}
        if whole is not None and groups is not None and groups.total:
            cut = _cut(inference_copy(whole), groups, sample, budget)
        widths = bench.widths(inference_copy(whole), cut, sample) if whole is not None and cut else {}
        timed = next(iter(cut.values()), None) if small is None else inference_copy(small)
        timed = inference_copy(networks[-1]) if timed is None else timed
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        counts = [1] if bench.cuda else sorted({1, 2, 4, cores} & {*range(1, cores + 1)})
        return SpeedAdvice(
            device=bench.name,
            size=(sample.size(2), sample.size(3)),
            budget=budget,
            widths=widths,
            threads={n: bench.milliseconds(timed, sample, n) for n in counts},
            batches={n: bench.milliseconds(timed, sample.expand(n, -1, -1, -1), 1) / n for n in BATCHES},
            layers=_layers(timed.to(bench.device), sample.to(bench.device)),
        )


def _cut(whole: nn.Module, groups: ChannelGroups, sample: Tensor, budget: float) -> dict[int, nn.Module]:
    """Networks by `channel_multiple`, with the widths that an agent might leave, by random scores.

    Multiples with which a narrow network can't come down to the budget are left out.
    """
    scores = torch.rand(groups.total, generator=torch.Generator().manual_seed(1))
    cost = MaskedCost(whole, groups, [sample], "exact")
    most = int(budget * cost.full)
    cut = {}
    for multiple in MULTIPLES:
        with suppress(UserError):
            mask = fit_budget(scores, groups, cost, most, channel_multiple=multiple)
            cut[multiple] = slim(whole, groups, mask)
    return cut


class _Bench:
    """Makes calls to time: on the GPU if there is one, else on the CPU.

    Attributes:
        cuda: Whether there is a GPU.
        device: torch's device.
        name: Device and runtime, for people.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.cuda = folder, torch.cuda.is_available()
        self.device = "cuda" if self.cuda else "cpu"
        self._onnx = not self.cuda and not lacking("onnx", "onnxruntime", "onnxscript")
        runtime = "ONNX Runtime" if self._onnx else f"torch {torch.__version__}"
        self.name = f"{device_name(self.device)}, {runtime}{'' if self.cuda else ', one thread'}"
        self._files: dict[int, Path] = {}

    def run(self, network: nn.Module, sample: Tensor, threads: int) -> Run:
        """A call of a network."""
        if not self._onnx:
            return torch_run(network.to(self.device), sample.to(self.device))
        if id(network) not in self._files:
            path = self.folder / f"{len(self._files)}.onnx"
            export_onnx(network, path, sample[:1])
            self._files[id(network)] = path
        return onnx_run(self._files[id(network)], sample.contiguous(), threads)

    def milliseconds(self, network: nn.Module, sample: Tensor, threads: int) -> float:
        """Median time of a batch."""
        with torch_threads(threads):
            return measure_latency(
                self.run(network, sample, threads), warmup=WARMUP, repetitions=REPETITIONS
            ).median_ms

    def widths(self, whole: nn.Module, cut: dict[int, nn.Module], sample: Tensor) -> dict[int, WidthTime]:
        """The times of cut networks, in turn with the whole one."""
        runs = [self.run(network, sample, 1) for network in (whole, *cut.values())]
        before, *times = time_in_turn(runs, warmup=WARMUP, repetitions=REPETITIONS)
        macs = count_macs(whole, [sample.to(next(whole.parameters()))])
        found = {}
        for (multiple, network), seconds in zip(cut.items(), times, strict=True):
            compared = compare_times(before, seconds)
            ratio = macs / count_macs(network, [sample.to(next(network.parameters()))])
            found[multiple] = WidthTime(compared.b.median_ms, compared.ratio, ratio)
        return found


def _layers(network: nn.Module, sample: Tensor) -> list[LayerTime]:
    """The layers without parts that take most of the time, in the order of their parts."""
    seconds: dict[str, float] = defaultdict(float)
    total = 0.0
    with torch.inference_mode():
        network(sample)
        for _ in range(3):
            with _timed(network, seconds, sample.is_cuda):
                start = time.perf_counter()
                network(sample)
                total += time.perf_counter() - start
    costs = {cost.name: cost.macs_exact for cost in layer_costs(network, [sample])}
    macs = max(1, sum(costs.values()))
    most = sorted(seconds, key=lambda name: -seconds[name])[:LAYERS]
    return [LayerTime(name, seconds[name] / total, costs.get(name, 0) / macs) for name in most]


@contextmanager
def _timed(network: nn.Module, seconds: dict[str, float], cuda: bool) -> Iterator[None]:
    """Context in which the calls of layers are timed."""
    began: dict[str, float] = {}

    def now() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def before(name: str) -> Any:
        return lambda *_: began.update({name: now()})

    def after(name: str) -> Any:
        def hook(*_: Any) -> None:
            seconds[name] += now() - began[name]

        return hook

    handles = []
    for name, module in network.named_modules():
        if not list(module.children()):
            handles += [
                module.register_forward_pre_hook(before(name)),
                module.register_forward_hook(after(name)),
            ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
