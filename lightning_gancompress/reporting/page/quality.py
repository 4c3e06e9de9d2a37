"""The table of cost and quality."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

# label, scale, unit, digits after the point
Style = tuple[str, float, str, int | None]

KNOWN: dict[str, Style] = {
    "macs_exact": ("MACs, exact", 1e9, "G", None),
    "macs_literature": ("MACs, literature", 1e9, "G", None),
    "params": ("Parameters", 1e6, "M", None),
    "bytes": ("File", 1e6, "MB", None),
    "activation_bytes": ("Feature maps", 1e6, "MB", None),
    "latency_ms": ("Latency", 1, "ms", None),
    "latency_compile_ms": ("Latency, compiled", 1, "ms", None),
    "latency_onnx_ms": ("Latency, ONNX", 1, "ms", None),
    "l1": ("L1 to the target", 1, "", 4),
    "psnr": ("PSNR", 1, "dB", 2),
    "ssim": ("SSIM", 1, "", 4),
    "lpips": ("LPIPS", 1, "", 4),
    "miou": ("mIoU", 1, "", 4),
    "pixel_accuracy": ("Pixel accuracy", 1, "", 4),
}


def quality_table(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per figure, one column per generator, and the student's share of the teacher's."""
    keys = dict.fromkeys(key for facts in networks.values() for key in facts)
    rows = []
    for key in [*(k for k in KNOWN if k in keys), *(k for k in keys if k not in KNOWN)]:
        values = [number(facts.get(key)) for facts in networks.values()]
        if all(value is None for value in values):
            continue
        label, scale, unit, digits = KNOWN.get(key) or other(key)
        cells = "".join(
            f'<td class="n {escape(name)}">{told(value, scale, unit, digits)}</td>'
            for name, value in zip(networks, values, strict=True)
        )
        first, last = values[0], values[-1]
        share = f"{100 * last / first:.3g}&thinsp;%" if first and last is not None else ""
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}<td class="n">{share}</td></tr>')
    heads = "".join(f'<th scope="col" class="n {escape(name)}">{escape(name)}</th>' for name in networks)
    return (
        '<div class="scroll"><table class="quality"><thead><tr><th scope="col"></th>'
        f'{heads}<th scope="col" class="n">share</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div>"
    )


def number(value: Any) -> float | None:
    """The figure of a plain number or of a latency; None for what is neither."""
    if isinstance(value, Mapping):
        value = value.get("median_ms")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def other(key: str) -> Style:
    """How to show what this release doesn't know, or knows by its beginning."""
    name, _, feature = key.partition("_")
    if name in ("fid", "kid"):
        label = name.upper() + (f"-{feature}" if feature else "")
        return (label, 1, "", 3) if name == "fid" else (f"{label} \u00d7 1000", 1e-3, "", 3)
    return key.replace("_", " "), 1, "", None


def told(value: float | None, scale: float, unit: str, digits: int | None) -> str:
    """A cell's text."""
    if value is None:
        return "\u2013"
    text = f"{value / scale:.4g}" if digits is None else f"{value / scale:.{digits}f}"
    return f"{text}&thinsp;{unit}" if unit else text
