"""What the command line does besides Lightning's commands: export, profile, compare and report."""

from __future__ import annotations

import json as json_format
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningDataModule
from rich.console import Console
from rich.table import Table
from torch import nn

from lightning_gancompress.checkpoints import load_network, load_networks, load_small, upstream_preprocessing
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import KEY as CHECKPOINT_KEY
from lightning_gancompress.checkpoints.training import split_prefix
from lightning_gancompress.checkpoints.upstream import direction_in_name
from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.export import export_onnx, export_torch
from lightning_gancompress.files import replacing
from lightning_gancompress.modules import CompressionModule, GANModule
from lightning_gancompress.networks import BatchNorm, blank_image, image_channels, pixels
from lightning_gancompress.pruning import (
    ChannelGroups,
    Convention,
    LayerCost,
    MaskedCost,
    NetworkGroup,
    layer_costs,
    read_groups,
    smallest_mask,
)
from lightning_gancompress.reporting.comparison import Run, execute, found_runs, plan, write_comparison
from lightning_gancompress.reporting.comparison.runs import command_line
from lightning_gancompress.reporting.comparison.tables import METRICS
from lightning_gancompress.reporting.page import write_page
from lightning_gancompress.tasks import Side

Size = int | tuple[int, int]

_SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


def export(
    ckpt_path: str,
    format: Literal["onnx", "torch"] = "onnx",
    output: str | None = None,
    size: Size | None = None,
    dynamic_size: bool = False,
    batch_norm: BatchNorm | None = None,
    network: str = "generator",
) -> None:
    """Write a generator as ONNX or as a torch.export program, checked against the original.

    Args:
        ckpt_path: A training checkpoint, a small model, or an upstream `latest_net_G.pth`.
        format: `onnx` for ONNX Runtime, `torch` for `torch.export.load`.
        output: File to write; beside `ckpt_path` unless given.
        size: Image size in pixels, or `[height, width]`; that of the training unless given.
        dynamic_size: Let the ONNX file accept other sizes too.
        batch_norm: `image` for the statistics of each image, as upstream's test; as recorded unless given.
        network: Of a training checkpoint; `teacher.generator` for the uncompressed one, `generator_AtoB` or
            `generator_BtoA` for CycleGAN.
    """
    if dynamic_size and format == "torch":
        raise UserError("dynamic_size is for --format onnx; a torch program has a fixed size.")
    model, _ = load_network(ckpt_path, network, batch_norm)
    path = Path(output) if output else _beside(Path(ckpt_path), network, _SUFFIX[format])
    recorded = recorded_preprocessing(Path(ckpt_path))
    image = blank_image(model, size or pixels(recorded), image_channels(recorded))
    if format == "onnx":
        facts = export_onnx(model, path, image, dynamic_size=dynamic_size)
    else:
        facts = export_torch(model, path, image)
    shape = "x".join(str(n) for n in facts["input_shape"])
    print(
        f"Wrote {path}: {facts['bytes'] / 1e6:.2f} MB, input {shape}, free {', '.join(facts['dynamic'])}, "
        f"differs from the network by at most {facts['max_difference']:.1e}"
    )


def profile(
    model: GANModule | None = None,
    datamodule: LightningDataModule | None = None,
    ckpt_path: str | None = None,
    size: Size | None = None,
    json: str | None = None,
) -> None:
    """Show what every layer of teacher and student costs, and which channels go together or stay, and why.

    Args:
        model: Whose teacher is profiled where there is no `ckpt_path`.
        datamodule: Knows the image size.
        ckpt_path: A training checkpoint, a small model, or an upstream `latest_net_G.pth`.
        size: Image size in pixels, or `[height, width]`; that of the training unless given.
        json: File for the totals.
    """
    if ckpt_path:
        networks = generators_in(Path(ckpt_path))
        size = size or recorded_size(Path(ckpt_path))
    elif model is not None:
        networks = teachers_of(model)
        size = size or pixels(getattr(datamodule, "preprocessing", {}))
    else:
        raise UserError("`profile` needs something to look at: give --config, --ckpt_path, or both.")
    costs = {name: costs_of(network, size) for name, network in networks.items()}
    console = Console()
    console.width = max(console.width, 140)  # a file has no width
    ignored_layers = model.pruning.ignored_layers if isinstance(model, CompressionModule) else []
    for name, layers in costs.items():
        groups = channel_groups(networks[name], size, ignored_layers)
        console.print(cost_table(name, layers, groups if isinstance(groups, ChannelGroups) else None))
        console.print(groups if isinstance(groups, str) else smallest_network(networks[name], groups, size))
    if json:
        with replacing(json) as draft:
            draft.write_text(json_format.dumps({n: totals(c) for n, c in costs.items()}, indent=2) + "\n")


def compare(
    output: str,
    experiments: dict[str, list[str] | None] | None = None,
    seeds: list[int] = [0, 1, 2],  # noqa: B006  # the command's help shows it
    budgets: list[float | str] = [],  # noqa: B006
    common: list[str] = [],  # noqa: B006
    test: list[str] = [],  # noqa: B006
    metrics: list[str] = list(METRICS),  # noqa: B006
    seed_options: list[str] = ["--seed_everything", "--data.seed"],  # noqa: B006
    jobs: int = 1,
    threads: int | None = None,
    only_report: bool = False,
    dry_run: bool = False,
) -> None:
    """Run experiments with several seeds, and lay their results side by side.

    Every run is a `fit` and a `test` in OUTPUT/NAME[/budget_B]/seed_S, with its words in log.txt. What is
    done is not done again: the same command goes on after Ctrl-C or a failure, and works on several machines
    at once where these share a file system with locks. After each run OUTPUT gets results.csv, table.md,
    plot.png (quality against MACs) and search.png (both sides' losses during the searches).
    Arguments of a run are configurations (`*.yaml`) and options (`--key=value`), in which {seed} and {budget}
    stand for those of the run.

    Args:
        output: The comparison's folder.
        experiments: Name -> arguments of its runs, after the common ones.
        seeds: Each experiment runs with each.
        budgets: Each experiment runs at each, as `--model.budget`; none leaves it to the arguments.
        common: Arguments of every run.
        test: Further arguments of every test.
        metrics: Columns of the table and panels of the plot, from those in results.csv: names or patterns.
        seed_options: Options that get the seed. `--data.seed` means order and augmentation of the images;
            leave it out for data modules that have none, and for generated pictures, which it would change.
        jobs: Runs at once.
        threads: CPU threads of each; the cores this process may use, or OMP_NUM_THREADS, by the number of
            jobs unless given.
        only_report: Tabulate the runs in `output`, however they were made, and run nothing.
        dry_run: Print the commands, and run nothing.
    """
    folder = Path(output)
    if only_report:
        places = found_runs(folder)
        if not places:
            raise UserError(f"{folder} has no NAME/seed_S/test/results.json or NAME/budget_B/seed_S/test/...")
        print_lines(f"warning: {w}" for w in write_comparison(folder, places, metrics))
        print((folder / "table.md").read_text())
        return
    if not experiments or not seeds or jobs < 1:
        raise UserError(
            "`compare` needs experiments, seeds, and one job or more: give --config comparison.yaml."
        )
    runs = plan(
        folder, experiments, seeds=seeds, budgets=budgets, common=common, test=test, seed_options=seed_options
    )
    stages = {run: run.stage() for run in runs}
    if dry_run:
        for run, stage in stages.items():
            print(f"# {run.place.path}: {stage}")
            commands = {"done": [], "test": ["test"]}.get(stage, [stage, "test"])
            print_lines(command_line(run.command(command)) for command in commands)
        return
    _run_all(folder, stages, metrics, jobs, threads or max(1, torch.get_num_threads() // jobs))


def report(folder: str) -> None:
    """Draw the page of a compression again, from the files of its run.

    Args:
        folder: The run's, with `checkpoints/last.ckpt`.
    """
    print(f"Wrote {write_page(folder)}")


# -- comparing --------------------------------------------------------------------------------------------


def _run_all(folder: Path, stages: dict[Run, str], metrics: list[str], jobs: int, threads: int) -> None:
    """Run what is due, rewrite the tables after each, and end the process with 1 if a run failed."""
    failed: dict[Run, str] = {}
    due = [run for run, stage in stages.items() if stage != "done"]
    print(", ".join(f"{stage}: {n}" for stage, n in Counter(stages.values()).items()), flush=True)

    def report() -> list[str]:
        names = list(dict.fromkeys(run.place.name for run in stages))
        done = [run.place for run in stages if run.stage() == "done"]
        return write_comparison(folder, sorted(done, key=lambda p: (names.index(p.name), p.seed)), metrics)

    def finished(run: Run, failure: str | None) -> None:
        print(f"{run.place.path}: {'failed: ' + failure if failure else 'done'}", flush=True)
        if failure:
            failed[run] = failure
        else:
            report()

    elsewhere = execute(due, jobs, threads, finished)
    print_lines(f"warning: {warning}" for warning in report())
    print((folder / "table.md").read_text())
    print_lines(f"{run.place.path}: another comparison is at work on it" for run in elsewhere)
    if failed:
        print(f"{len(failed)} of {len(stages)} runs failed; the same command tries them again:")
        print_lines(
            f"{run.place.path}: {words} (see {run.folder / 'log.txt'})" for run, words in failed.items()
        )
        raise SystemExit(1)


def print_lines(lines: Iterable[str]) -> None:
    """Print each."""
    for line in lines:
        print(line)


# -- files -----------------------------------------------------------------------------------------------


def generators_in(path: Path) -> dict[str, nn.Module]:
    """Generators of any file: `teacher`, `student`, or both, those of a direction with `_AtoB` or `_BtoA`."""
    if path.suffix == ".ckpt":
        found = {}
        for prefix, (network, _) in load_networks(path, Side.GENERATOR).items():
            part, role = split_prefix(prefix)
            found[("student" if part == "student" else "teacher") + role.suffix] = network
        return found
    part = "student" if path.with_suffix(".json").is_file() else "teacher"
    direction = direction_in_name(path)
    return {f"{part}_{direction}" if direction else part: load_network(path)[0]}


def recorded_size(path: Path) -> Size:
    """Pixels of the images that the networks in a file were made for; 256 where it doesn't say."""
    return pixels(recorded_preprocessing(path))


def recorded_preprocessing(path: Path) -> dict[str, Any]:
    """What a file says of the images that its networks were made for."""
    if path.suffix == ".ckpt":
        return dict(read_torch(path).get(CHECKPOINT_KEY, {}).get("preprocessing", {}))
    if path.with_suffix(".json").is_file():
        return dict(load_small(path)[2].get("preprocessing", {}))
    return dict(upstream_preprocessing(path))


def teachers_of(model: GANModule) -> dict[str, nn.Module]:
    """The uncompressed generators of a module that has not been set up, named as in `generators_in`."""
    roles = model.task.generators
    if isinstance(model, CompressionModule):
        model.build()
        roles = tuple(role for role in roles if role in model.teacher)
    return {"teacher" + role.suffix: next(iter(model.generators(role).values())) for role in roles}


def _beside(path: Path, network: str, ending: str) -> Path:
    """Where an exported network goes: both directions of one checkpoint have room beside it."""
    direction = next((d for d in ("_AtoB", "_BtoA") if network.endswith(d)), "")
    return path.with_name(path.stem.removesuffix(direction) + direction + ending)


# -- costs -----------------------------------------------------------------------------------------------


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


def totals(layers: list[LayerCost]) -> dict[str, int]:
    """Sums over the layers, under the names of the JSON file."""
    return {
        name: sum(getattr(layer, name) for layer in layers)
        for name in ("macs_exact", "macs_literature", "params")
    }


def channel_groups(network: nn.Module, size: Size, ignored_layers: list[str]) -> ChannelGroups | str:
    """The channels that go together, or in words why they can't be read."""
    bundle = NetworkGroup({"generator": network})
    patterns = [p.removeprefix("generator.") for p in bundle.qualified(ignored_layers)]
    try:
        return read_groups(network, [blank_image(network, size)], patterns)
    except UserError as error:
        return str(error)


def smallest_network(network: nn.Module, groups: ChannelGroups, size: Size) -> str:
    """What can be dropped at most, in words."""
    if not groups.total:
        return "No channels can be dropped: every layer stays whole, for the reasons above."
    image, parts = blank_image(network, size), []
    for convention in get_args(Convention):
        cost = MaskedCost(network, groups, [image], convention)
        smallest = float(cost(smallest_mask(groups)))
        parts.append(f"{smallest / 1e9:.4g} of {cost.full / 1e9:.4g} GMACs ({convention})")
    return (
        f"{groups.total} channels in {len(groups.sizes)} groups can be dropped. With one left of each group "
        f"the network has {', '.join(parts)}."
    )


def cost_table(name: str, layers: list[LayerCost], groups: ChannelGroups | None) -> Table:
    """One row per layer, and the totals."""
    table = Table(title=name, title_justify="left", show_footer=True)
    table.add_column("layer", "total", overflow="fold")
    table.add_column("kind")
    table.add_column("output shape")
    for key, total in totals(layers).items():
        title = {"macs_exact": "MACs (exact)", "macs_literature": "MACs (literature)"}.get(key, "parameters")
        table.add_column(title, f"{total:,}", justify="right")
    table.add_column("channels go with", overflow="fold")
    for layer in layers:
        costs = (f"{n:,}" for n in (layer.macs_exact, layer.macs_literature, layer.params))
        shape = "x".join(map(str, layer.output_shape))
        table.add_row(layer.name, layer.kind, shape, *costs, _channels_of(layer.name, groups))
    return table


def _channels_of(layer: str, groups: ChannelGroups | None) -> str:
    """Groups of what a layer writes, or why it writes all."""
    if groups is None:
        return ""
    whole = [
        reason for name, reason in groups.whole.items() if name == layer or name.rpartition(".")[0] == layer
    ]
    if whole:
        return f"stays whole: {whole[0]}"
    return ", ".join(groups.names_of(groups.layers[layer].outputs)) if layer in groups.layers else ""
