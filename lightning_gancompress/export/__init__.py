"""Export of networks to ONNX, OpenVINO and `torch.export`, and their latency and memory. No Lightning."""

from lightning_gancompress.export.latency import (
    Latency,
    LatencyComparison,
    compare_latency,
    measure_latency,
    onnx_latency,
    onnx_run,
    torch_latency,
    torch_run,
    torch_threads,
)
from lightning_gancompress.export.memory import peak_activation_bytes
from lightning_gancompress.export.onnx import export_onnx, load_onnx, onnx_session
from lightning_gancompress.export.openvino import export_openvino
from lightning_gancompress.export.program import export_torch
from lightning_gancompress.export.reduction import Precision, Reduction

__all__ = [
    "Latency",
    "LatencyComparison",
    "Precision",
    "Reduction",
    "compare_latency",
    "export_onnx",
    "export_openvino",
    "export_torch",
    "load_onnx",
    "measure_latency",
    "onnx_latency",
    "onnx_run",
    "onnx_session",
    "peak_activation_bytes",
    "torch_latency",
    "torch_run",
    "torch_threads",
]
