"""Kept channels per layer, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def channel_section(networks: Mapping[str, nn.Module], roles: list[str]) -> str:
    """Bars for each network of the student that became smaller, in the order of its layers."""
    tables, told = [], []
    for prefix, student in networks.items():
        part, _, role = prefix.partition(".")
        teacher = networks.get(f"teacher.{role}")
        if part != "student" or teacher is None or (role.startswith("generator") and role not in roles):
            continue
        rows = kept(teacher, student)
        after, before = sum(row[1] for row in rows), sum(row[2] for row in rows)
        if after == before and role not in roles:
            continue
        told.append(f"{round(100 * after / max(before, 1))} % of the {role.replace('_', ' ')}\u2019s")
        tables.append(bars(role, rows, teacher))
    finding = " and ".join(told[-2:]) if len(told) < 3 else ", ".join(told)
    return (
        f"<section><h2>{escape(finding)} channels stay</h2>"
        '<p class="soft">Output channels of each layer: a full bar is the teacher\u2019s layer; '
        "↓ and ↑ halve and double the "
        "resolution.</p>"
        f'<div class="sides">{"".join(tables)}</div></section>'
    )


def kept(teacher: nn.Module, student: nn.Module) -> list[tuple[str, int, int]]:
    """Name, channels of the student and of the teacher, of each convolution and linear layer."""
    small = widths(student)
    return [(name, small[name], before) for name, before in widths(teacher).items() if name in small]


def widths(network: nn.Module) -> dict[str, int]:
    """Output channels by layer."""
    return {
        name: layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
        for name, layer in network.named_modules()
        if isinstance(layer, _ConvNd | nn.Linear)
    }


def label(name: str, layer: nn.Module) -> str:
    """A layer's name without the parts that say nothing, and whether it changes the resolution."""
    short = ".".join(part for part in name.split(".") if part != "model")
    if isinstance(layer, _ConvTransposeNd):
        return f"{short} ↑"
    return f"{short} ↓" if isinstance(layer, _ConvNd) and max(layer.stride) > 1 else short


def bars(role: str, rows: list[tuple[str, int, int]], network: nn.Module) -> str:
    """A table whose middle column draws."""
    widest = max((before for _, _, before in rows), default=1)
    lines = "".join(
        f'<tr><th scope="row" class="layer" title="{escape(name)}">'
        f"{escape(label(name, network.get_submodule(name)))}</th>"
        f'<td class="bar"><div style="width:{100 * before / widest:.1f}%" title="{after} of {before}">'
        f'<i style="width:{100 * after / before:.1f}%"></i></div></td>'
        f'<td class="n">{after} of {before}</td></tr>'
        for name, after, before in rows
    )
    return (
        f"<div><h3>{escape(role.replace('_', ' '))}</h3>"
        f'<table class="widths {role.partition("_")[0]}"><thead>'
        '<tr><th scope="col">layer</th><th scope="col" style="width:40%">kept</th>'
        f'<th scope="col" class="n">channels</th></tr></thead><tbody>{lines}</tbody></table></div>'
    )
