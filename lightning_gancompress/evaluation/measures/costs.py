"""The costs of generators: MACs, parameters, file size, memory and latency."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_gancompress.devices import device_name
from lightning_gancompress.errors import first_line
from lightning_gancompress.evaluation.evaluable import evaluable, phase_of
from lightning_gancompress.evaluation.exported import ExportedFiles
from lightning_gancompress.evaluation.measure import Findings, Measure, Seen
from lightning_gancompress.evaluation.metrics import (
    ACTIVATION_BYTES,
    BYTES,
    LATENCY,
    LATENCY_COMPILE,
    LATENCY_ONNX,
    LATENCY_OPENVINO,
    MACS_EXACT,
    MACS_LITERATURE,
    PARAMS,
)
from lightning_gancompress.evaluation.results import LatencyResult, RuntimeFacts
from lightning_gancompress.export import (
    export_onnx,
    export_openvino,
    peak_activation_bytes,
    torch_run,
    torch_threads,
)
from lightning_gancompress.export.latency import Latency, Run, compare_times, time_in_turn
from lightning_gancompress.export.program import inference_copy
from lightning_gancompress.packages import require
from lightning_gancompress.pruning import count_macs, count_params
from lightning_gancompress.translation.model import ImageModel
from lightning_gancompress.translation.opening import open_model

Runtime = Literal["torch", "compile", "onnx", "openvino"]


class IsDevice:
    """Requires the name of a device that torch knows."""

    def accepts(self, value: str) -> bool:
        """Whether torch knows a device."""
        try:
            torch.device(value)
        except RuntimeError:
            return False
        return True

    def __str__(self) -> str:
        return "that torch knows as a device, such as cpu or cuda:0"


Device = Annotated[str, IsDevice()]
FIGURES: dict[Runtime, str] = {
    "torch": LATENCY,
    "compile": LATENCY_COMPILE,
    "onnx": LATENCY_ONNX,
    "openvino": LATENCY_OPENVINO,
}
FILES: dict[Runtime, str] = {"onnx": ".onnx", "openvino": ".xml"}  # of runtimes that run files


class Costs(Measure):
    """MACs, parameters, bytes, memory and latency of every generator for one image, on rank 0 alone.

    Args:
        latency: Whether to time the generators.
        runtimes: Runtimes to time: torch, torch after `torch.compile`, ONNX Runtime and OpenVINO on the CPU.
        device: Device of torch's timings.
        threads: CPU threads while timing.
        repetitions: Timed calls per generator, after three warm-up calls.
        exported: Exported files, which are timed in their runtimes, in turn with the networks.
    """

    def __init__(
        self,
        latency: bool,
        runtimes: list[Runtime],
        device: str,
        threads: int,
        repetitions: int,
        exported: ExportedFiles | None = None,
    ) -> None:
        self.exported = exported or ExportedFiles([])
        self.latency, self.runtimes, self.device = latency, runtimes, device
        self.threads, self.repetitions = threads, repetitions

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before the test that the packages of all runtimes are installed."""
        if self.latency:
            require_runtimes(self.runtimes)

    def findings(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Findings:
        """Costs of translating one image of the shape of the first test image."""
        findings = Findings()
        if not trainer.is_global_zero:
            return findings
        networks = evaluable(pl_module).generators(seen.role)
        findings.networks = {name: {**count_costs(net, seen.sample)} for name, net in networks.items()}
        if phase_of(pl_module) == "search":
            return findings  # a masked network is not smaller yet, and can't be copied
        copies = {name: inference_copy(network) for name, network in networks.items()}
        for name, network in copies.items():
            findings.networks[name][ACTIVATION_BYTES] = peak_activation_bytes(network, seen.sample)
        files = self.exported.of(seen.role)
        findings.networks |= {name: {BYTES: model.bytes} for name, model in files.items()}
        for runtime in self._runtimes(files):
            own = {name: model.path for name, model in files.items() if model.runtime == runtime}
            findings.add(self.time(copies, own, seen.sample, runtime))
        return findings

    def _runtimes(self, files: Mapping[str, ImageModel]) -> list[Runtime]:
        """The runtimes to time."""
        own = [model.runtime for model in files.values()]
        return list(dict.fromkeys([*self.runtimes, *own])) if self.latency else []

    def time(
        self, networks: Mapping[str, nn.Module], files: Mapping[str, Path], sample: Tensor, runtime: Runtime
    ) -> Findings:
        """Latency of each network and file in one runtime; their calls alternate."""
        device = "cpu" if runtime in FILES else self.device
        try:
            with tempfile.TemporaryDirectory() as folder, torch_threads(self.threads):
                runs = [
                    make_run(net, sample, runtime, device, self.threads, Path(folder, name))
                    for name, net in networks.items()
                ]
                runs += [file_run(path, sample, device, self.threads) for path in files.values()]
                times = time_in_turn(runs, repetitions=self.repetitions)
        except Exception as error:  # a missing compiler or package must not stop the test
            return Findings(latency={runtime: RuntimeFacts(failed=first_line(error))})
        figures = [LatencyResult(**asdict(Latency.of(seconds))) for seconds in times]
        speedup = compare_times(*times[:2]).ratio if len(networks) == 2 else None
        facts = RuntimeFacts(device_name(device), self.threads, version(runtime), speedup)
        names = [*networks, *files]
        return Findings(
            networks={name: {FIGURES[runtime]: f} for name, f in zip(names, figures, strict=True)},
            latency={runtime: facts},
        )


def count_costs(network: nn.Module, sample: Tensor) -> dict[str, int]:
    """MACs of one image like `sample` in both conventions, parameters, and bytes of the saved state dict."""
    inputs = (sample.to(next(network.parameters())),)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return {
        MACS_EXACT: count_macs(network, inputs, "exact"),
        MACS_LITERATURE: count_macs(network, inputs, "literature"),
        PARAMS: count_params(network),
        BYTES: file.getbuffer().nbytes,
    }


def make_run(
    network: nn.Module, sample: Tensor, runtime: Runtime, device: str, threads: int, path: Path
) -> Run:
    """A function that runs a network in a runtime once, to be timed."""
    if runtime in FILES:
        export = export_onnx if runtime == "onnx" else export_openvino
        file = path.with_name(path.name + FILES[runtime])
        export(network, file, sample.cpu())
        return file_run(file, sample, device, threads)
    network, sample = network.to(device), sample.to(device)
    if runtime == "torch":
        return torch_run(network, sample)
    compiled = torch.compile(network)

    def run() -> None:
        with torch.inference_mode():
            compiled(sample)
        if sample.is_cuda:
            torch.cuda.synchronize(sample.device)

    run()  # compiles
    return run


def file_run(path: Path, sample: Tensor, device: str, threads: int) -> Run:
    """A function that runs a model file once, to be timed."""
    model, images = open_model(path, device, threads), sample.cpu()
    return lambda: model.run(images)


def require_runtimes(runtimes: Sequence[Runtime]) -> None:
    """Raise a `UserError` where a runtime's package is missing."""
    for runtime, package in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        if runtime in runtimes:
            require(f"latency_runtimes: {runtime}", package)


def version(runtime: Runtime) -> str:
    """Name and version of a runtime."""
    if runtime == "onnx":
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}"
    if runtime == "openvino":
        import openvino

        return f"OpenVINO {openvino.__version__.partition('-')[0]}"
    return f"torch {torch.__version__}" + (" compiled" if runtime == "compile" else "")
