"""The command `profile`."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from typing import get_args

from lightning.pytorch import LightningDataModule
from rich.console import Console
from rich.table import Table
from torch import nn

from lightning_gancompress.checkpoints.generators import (
    GeneratorName,
    generators_in,
    recorded_preprocessing,
)
from lightning_gancompress.data.contract import adapt
from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.evaluation.metrics import MACS_EXACT, MACS_LITERATURE, PARAMS, metric
from lightning_gancompress.files import replacing, require_writable, user_path
from lightning_gancompress.modules import CompressionModule, GANModule
from lightning_gancompress.networks import blank_image, pixels
from lightning_gancompress.options import Pixels, checked
from lightning_gancompress.pruning import (
    ChannelGroups,
    Convention,
    LayerCost,
    MaskedCost,
    NetworkGroup,
    layer_costs,
    parse_budget,
    read_groups,
    smallest_mask,
)
from lightning_gancompress.run_folder import CHECKPOINTS
from lightning_gancompress.speed import measure_speed, write_advice
from lightning_gancompress.tasks import Role, Side

Size = Pixels | tuple[Pixels, Pixels]


@checked
def profile(
    model: GANModule | None = None,
    datamodule: LightningDataModule | None = None,
    ckpt_path: str | None = None,
    size: Size | None = None,
    json: str | None = None,
    advice: bool = False,
) -> None:
    """Print the cost of every layer of teacher and student, its channel groups, or why it can't be pruned.

    Args:
        model: Module whose teacher is profiled if there is no `ckpt_path`.
        datamodule: Provides the image size.
        ckpt_path: A training checkpoint, a small model, or an upstream `latest_net_G.pth`.
        size: Image size in pixels, or `[height, width]`; None is that of the training.
        json: File for the totals.
        advice: Whether to measure, in seconds, what is fast on this machine: widths in multiples of 4, 8 and
            16, threads, batches, and which layers take the time. Of `checkpoints/last.ckpt` of a compression
            it is kept in the run's folder, for the report.
    """
    file = user_path(json) if json else None
    if file and file.exists() and MACS_EXACT not in file.read_text(errors="replace"):
        raise UserError(f"json {file} exists and holds something else: choose another name.")
    if ckpt_path:
        path = user_path(ckpt_path)
        networks, recorded = generators_in(path), recorded_preprocessing(path)
    elif model is not None:
        networks = teachers_of(model)
        recorded = dict(adapt(datamodule).preprocessing)
    else:
        raise UserError("`profile` needs something to look at: give --config, --ckpt_path, or both.")
    if file:
        require_writable(file.parent, "json")
    size = size or pixels(recorded)
    ignored_layers = model.pruning.ignored_layers if isinstance(model, CompressionModule) else []
    console = Console()
    console.width = max(console.width, 140)  # a file has no width
    costs = {str(name): costs_of(network, size) for name, network in networks.items()}
    found = {}
    for name, network in networks.items():
        groups = found[name] = channel_groups(network, name.role, size, ignored_layers)
        if isinstance(groups, ChannelGroups):
            console.print(cost_table(str(name), costs[str(name)], groups))
            console.print(smallest_network(network, groups, size))
        else:
            console.print(cost_table(str(name), costs[str(name)], None))
            console.print(groups)
    for role in dict.fromkeys(name.role for name in networks) if advice else ():
        whole, small = (networks.get(GeneratorName(part, role)) for part in ("teacher", "student"))
        of_whole = found.get(GeneratorName("teacher", role))
        groups_of_whole = of_whole if isinstance(of_whole, ChannelGroups) else None
        budget = budget_of(model, {n.part: costs[str(n)] for n in networks if n.role == role})
        sentences = measure_speed(whole, small, groups_of_whole, size, budget).sentences()
        print(*sentences, sep="\n")
        if ckpt_path and whole is not None and small is not None and path.parent.name == CHECKPOINTS:
            write_advice(path.parent.parent / f"speed{role.suffix}.json", sentences)
    if file:
        with replacing(file) as draft:
            draft.write_text(json_format.dumps({n: totals(c) for n, c in costs.items()}, indent=2) + "\n")


def teachers_of(model: GANModule) -> dict[GeneratorName, nn.Module]:
    """The uncompressed generators of a module that has not been set up."""
    roles = model.task.generators
    if isinstance(model, CompressionModule):
        model.phases.build()
        roles = tuple(role for role in roles if role in model.teacher)
    return {GeneratorName("teacher", role): next(iter(model.generators(role).values())) for role in roles}


def costs_of(network: nn.Module, size: Size) -> list[LayerCost]:
    """Cost of every layer at an image size.

    Raises:
        UserError: The network doesn't take images of that size.
    """
    image = blank_image(network, size)
    try:
        return layer_costs(network, [image])
    except UserError:
        raise
    except Exception as error:  # whatever a user's forward raises
        raise UserError(
            f"{type(network).__name__} doesn't take images of {image.shape[-2]} x {image.shape[-1]} pixels "
            f"({first_line(error)}): give another --size."
        ) from error


def budget_of(model: GANModule | None, costs: Mapping[str, list[LayerCost]]) -> float:
    """The budget relative to the teacher: as it came out, else as it is configured, else a tenth."""
    macs = {part: totals(layers)[MACS_EXACT] for part, layers in costs.items()}
    if macs.keys() == {"teacher", "student"}:
        return macs["student"] / macs["teacher"]
    if isinstance(model, CompressionModule):
        full = macs["teacher"]
        return parse_budget(model.pruning.budgets[Side.GENERATOR], full) / full
    return 0.1


def totals(layers: list[LayerCost]) -> dict[str, int]:
    """Sums over the layers, by the names of the JSON file."""
    return {
        MACS_EXACT: sum(layer.macs_exact for layer in layers),
        MACS_LITERATURE: sum(layer.macs_literature for layer in layers),
        PARAMS: sum(layer.params for layer in layers),
    }


def channel_groups(
    network: nn.Module, role: Role, size: Size, ignored_layers: list[str]
) -> ChannelGroups | str:
    """The channel groups of a network, or the message of the error if they can't be found."""
    patterns = NetworkGroup({role: network}).qualified(ignored_layers)
    patterns = [pattern.removeprefix(f"{role}.") for pattern in patterns]
    try:
        return read_groups(network, [blank_image(network, size)], patterns)
    except UserError as error:
        return str(error)


def smallest_network(network: nn.Module, groups: ChannelGroups, size: Size) -> str:
    """The number of droppable channels and the least possible MACs, as text."""
    if not groups.total:
        return "No channels can be dropped: every layer stays whole, for the reasons above."
    image, least = blank_image(network, size), []
    for convention in get_args(Convention):
        cost = MaskedCost(network, groups, [image], convention)
        smallest = float(cost(smallest_mask(groups)))
        least.append(f"{smallest / 1e9:.4g} of {cost.full / 1e9:.4g} GMACs ({convention})")
    return (
        f"{groups.total} channels in {len(groups.sizes)} groups can be dropped. With one left of each group "
        f"the network has {', '.join(least)}."
    )


def cost_table(name: str, layers: list[LayerCost], groups: ChannelGroups | None) -> Table:
    """A table with one row per layer, and the totals in its footer."""
    table = Table(title=name, title_justify="left", show_footer=True)
    table.add_column("layer", "total", overflow="fold")
    table.add_column("kind")
    table.add_column("output shape")
    for key, total in totals(layers).items():
        table.add_column(metric(key).label, f"{total:,}", justify="right")
    table.add_column("channels go with", overflow="fold")
    for layer in layers:
        costs = (f"{n:,}" for n in (layer.macs_exact, layer.macs_literature, layer.params))
        shape = "x".join(map(str, layer.output_shape))
        table.add_row(layer.name, layer.kind, shape, *costs, _channels_of(layer.name, groups))
    return table


def _channels_of(layer: str, groups: ChannelGroups | None) -> str:
    """Groups of a layer's output channels, or why it is not pruned."""
    if groups is None:
        return ""
    whole = [
        reason for name, reason in groups.whole.items() if name == layer or name.rpartition(".")[0] == layer
    ]
    if whole:
        return f"stays whole: {whole[0]}"
    return ", ".join(groups.names_of(groups.layers[layer].outputs)) if layer in groups.layers else ""
