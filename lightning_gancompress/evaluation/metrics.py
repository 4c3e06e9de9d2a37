"""The registry of metrics: their names, and how tables and plots show them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

TEACHER = "teacher_"  # prefix of figures that compare the student with the teacher

MACS_EXACT, MACS_LITERATURE, PARAMS, BYTES = "macs_exact", "macs_literature", "params", "bytes"
ACTIVATION_BYTES = "activation_bytes"
LATENCY, LATENCY_COMPILE, LATENCY_ONNX = "latency_ms", "latency_compile_ms", "latency_onnx_ms"
LATENCY_OPENVINO = "latency_openvino_ms"
L1, PSNR, SSIM, LPIPS = "l1", "psnr", "ssim", "lpips"
FID, KID = "fid", "kid"
DENSITY, COVERAGE, PRECISION, RECALL, ISE = "density", "coverage", "precision", "recall", "ise"
MIOU, PIXEL_ACCURACY = "miou", "pixel_accuracy"
OF_DENSITY = (DENSITY, COVERAGE, PRECISION, RECALL, ISE)
COMPARED = ("fid*", "kid*", MIOU, LPIPS, *(TEACHER + name for name in (LPIPS, L1, "fid*", COVERAGE, ISE)))
# patterns of the metrics that `compare` shows by default


@dataclass(frozen=True)
class Metric:
    """The name of a metric and how its figures are shown.

    Args:
        name: Key in `results.json`.
        label: Name in tables and plots.
        unit: Unit after the number, such as `dB`; empty for none.
        better: Whether lower or higher figures are better; None for neither.
        digits: Digits after the decimal point; None for four significant digits.
        scale: Factor of the shown number, such as 100 for per cent.
    """

    name: str
    label: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    digits: int | None = None
    scale: float = 1.0

    @property
    def heading(self) -> str:
        """The label, with the scale where no unit implies it: `KID x 1000`."""
        return f"{self.label} x {self.scale:g}" if self.scale != 1 and not self.unit else self.label

    @property
    def arrow(self) -> str:
        """Direction of better figures: ↓, ↑, or empty."""
        return {"lower": "↓", "higher": "↑", None: ""}[self.better]

    def number(self, value: float) -> str:
        """A figure as text, scaled and rounded, without unit."""
        return f"{value * self.scale:.4g}" if self.digits is None else f"{value * self.scale:.{self.digits}f}"

    def format(self, value: float) -> str:
        """A figure with its unit, as in all tables."""
        return f"{self.number(value)} {self.unit}".rstrip()


METRICS: dict[str, Metric] = {}
"""All known metrics by name; the order is that of tables."""


def register(*metrics: Metric) -> None:
    """Make metrics known, so that tables show them under their labels; a known name stays as it is."""
    for metric in metrics:
        METRICS.setdefault(metric.name, metric)


register(
    Metric(MACS_EXACT, "MACs (exact)", "G", "lower", scale=1e-9),
    Metric(MACS_LITERATURE, "MACs (literature)", "G", "lower", scale=1e-9),
    Metric(PARAMS, "Parameters", "M", "lower", scale=1e-6),
    Metric(BYTES, "File", "MB", "lower", scale=1e-6),
    Metric(ACTIVATION_BYTES, "Feature maps", "MB", "lower", scale=1e-6),
    Metric(LATENCY, "Latency", "ms", "lower"),
    Metric(LATENCY_COMPILE, "Latency, compiled", "ms", "lower"),
    Metric(LATENCY_ONNX, "Latency, ONNX", "ms", "lower"),
    Metric(LATENCY_OPENVINO, "Latency, OpenVINO", "ms", "lower"),
    Metric(L1, "L1", "", "lower", 4),
    Metric(PSNR, "PSNR", "dB", "higher", 2),
    Metric(SSIM, "SSIM", "", "higher", 4),
    Metric(LPIPS, "LPIPS", "", "lower", 4),
    Metric(MIOU, "mIoU", "", "higher", 4),
    Metric(PIXEL_ACCURACY, "Pixel accuracy", "", "higher", 4),
    Metric(FID, "FID", "", "lower", 3),
    Metric(KID, "KID", "", "lower", 3, scale=1000),
    Metric(DENSITY, "Density", "", None, 4),  # as many samples in a ball as there should be is best: 1
    Metric(COVERAGE, "Coverage", "", "higher", 4),
    Metric(PRECISION, "Precision", "", "higher", 4),
    Metric(RECALL, "Recall", "", "higher", 4),
    Metric(ISE, "ISE", "", "lower", 4),
)
BUILT_IN = frozenset(METRICS)


def metric(name: str) -> Metric:
    """The metric of a key in `results.json`; an unregistered one gets its plain name as label."""
    return registered(name) or Metric(name, name.replace("_", " "))


def registered(name: str) -> Metric | None:
    """The metric of a key in `results.json`, or None if it is not registered.

    `fid_768`, the FID of another layer, is shown like `fid`; `teacher_l1`, the distance between student and
    teacher, like `l1`.
    """
    if name in METRICS:
        return METRICS[name]
    if name.startswith(TEACHER):
        base = registered(name.removeprefix(TEACHER))
        return base and replace(base, name=name, label=f"{base.label} to the teacher")
    family, _, variant = name.rpartition("_")
    if family in METRICS and variant.isdigit():
        return replace(METRICS[family], name=name, label=f"{METRICS[family].label}-{variant}")
    return None


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of tables: as registered, families together, others last, `teacher_*` at the end."""

    def place(name: str) -> tuple[bool, int]:
        base = name.removeprefix(TEACHER)
        matches = (n for n, known in enumerate(METRICS) if base == known or base.startswith(f"{known}_"))
        return base != name, next(matches, len(METRICS))

    return sorted(dict.fromkeys(names), key=place)
