"""Zoo: how the channel groups of public networks are read, none of them written for this project.

    make zoo                                                  # all that is not measured yet, then the table
    .zoo/bin/python tests/zoo.py --only "smp Unet" --again    # a part of it, measured anew

Every network of `zoo_networks.py` is looked at in a process of its own, with limits of time and memory: how
many positions can be dropped, what share of its MACs goes with them, and whether masked and slim networks
agree, by the project's check and by one of this script.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from zoo_networks import NETWORKS

REFUSALS = 50
# What sums in another order may differ by, of the largest value.
ENOUGH = {"float64": 1e-8, "float32": 1e-4}

# -- one network, in a process of its own ------------------------------------------------------------------


class OutOfTime(BaseException):
    """Not an Exception: nothing that catches those may go on."""


def measure(name: str, record: Callable[..., None], seconds: int) -> None:
    """Read, check and cost one network; whatever is known is recorded after every step."""
    entry = next(entry for entry in NETWORKS if entry.name == name)
    record(inputs=entry.inputs, stage="build")
    inputs = entry.images()
    network = entry.build().eval()
    with torch.no_grad():
        run(network, inputs)
    record(layers=sum(isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) for m in network.modules()))
    limit_time(seconds)
    started = time.process_time()
    groups, difference = read(network, inputs, record)
    record(seconds=round(time.process_time() - started, 2), positions=groups.total, difference=difference)
    record(stage="cost", share=share(network, groups, inputs))
    record(stage="independent check")
    record(**independent(network, groups, inputs))
    record(stage="done")


def read(network: nn.Module, inputs: list[Tensor], record: Callable[..., None]) -> tuple[Any, float | None]:
    """Groups and what the check says of them; where it refuses, its own remedies are followed."""
    from lightning_gancompress import UserError
    from lightning_gancompress.pruning import check_groups, find_groups

    ignored: list[str] = []
    messages: list[str] = []
    for refusals in range(REFUSALS + 1):
        record(stage="find", refusals=refusals, whole=len(ignored))
        try:
            groups = find_groups(network, inputs, ignored)
            whole = getattr(groups, "whole", None)
            if whole is not None:
                record(whole=len(whole), reasons=dict(Counter(whole.values()).most_common()))
            record(stage="check")
            return groups, check_groups(network, groups, inputs)
        except UserError as error:
            remedy = re.search(r"ignored_layers: \[(.*)\]", str(error))
            names = remedy[1].split(", ") if remedy else []
            messages.append(str(error)[:300])
            record(refused=messages)
            if refusals == REFUSALS or not names or set(names) <= set(ignored):
                raise
            ignored += names
    raise AssertionError


def share(network: nn.Module, groups: Any, inputs: list[Tensor]) -> float:
    """Share of the exact MACs that go with all channels but one of every group."""
    from lightning_gancompress.pruning import MaskedCost

    cost = MaskedCost(network, groups, inputs, "exact")
    mask = torch.cat([torch.arange(size) == 0 for size in groups.sizes]).float()
    return 1 - float(cost(mask)) / cost.full


@torch.no_grad()
def independent(network: nn.Module, groups: Any, inputs: list[Tensor]) -> dict[str, Any]:
    """Largest relative difference of masked and slim networks for two random masks, in double precision.

    `moved` says how much a mask changes the output: a check where it does not, sees nothing.
    """
    whole = disturbed(network).double()
    images = [x.double() if x.is_floating_point() else x for x in inputs]
    try:
        outputs = run(whole, images)
    except RuntimeError:  # a network that makes single precision of its own
        whole, images = whole.float(), inputs
        outputs = run(whole, images)
    worst, moved = 0.0, 0.0
    for seed, keep in enumerate((0.5, 0.25)):
        masked, slimmed = masked_and_slim(whole, groups, random_mask(groups, keep, seed), images)
        worst, moved = max(worst, relative(masked, slimmed)), max(moved, relative(outputs, masked))
    return {"independent": worst, "moved": moved, "dtype": str(outputs[0].dtype).removeprefix("torch.")}


def masked_and_slim(
    whole: nn.Module, groups: Any, mask: Tensor, images: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    from lightning_gancompress.pruning import ChannelMasks, slim

    slimmed = run(slim(whole, groups, mask).eval(), images)
    masks = ChannelMasks(groups)
    masks.set(mask)
    masks.attach(whole)
    masked = run(whole, images)
    masks.detach()
    return masked, slimmed


def disturbed(network: nn.Module) -> nn.Module:
    """Statistics unlike their defaults, and no parameter that is constant: zeros would hide what follows."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        constant = parameter.numel() and (parameter == parameter.flatten()[0]).all()
        if parameter.is_floating_point() and constant:
            parameter.add_(torch.rand(parameter.shape, generator=generator).sub_(0.5).mul_(0.4))
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.mul_(torch.rand(buffer.shape, generator=generator).add_(0.5))
        elif name.endswith("running_mean"):
            buffer.add_(torch.randn(buffer.shape, generator=generator).mul_(0.1))
    return network


def random_mask(groups: Any, keep: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.rand(size, generator=generator) for size in groups.sizes]
    return torch.cat([(part <= max(keep, float(part.min()))).float() for part in parts])


def run(network: nn.Module, images: list[Tensor]) -> list[Tensor]:
    """Outputs, with the same noise every time, all of them finite; some networks write into their input."""
    torch.manual_seed(0)
    outputs = list(tensors(network(*(x.clone() for x in images))))
    if not all(bool(x.isfinite().all()) for x in outputs):
        raise ArithmeticError("an output is not finite")
    return outputs


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.ndim:
            yield value.clone()
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


def relative(first: list[Tensor], second: list[Tensor]) -> float:
    pairs = zip(first, second, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) for a, b in pairs)


def limit_time(seconds: int) -> None:
    """End this process after so many seconds of its own, however busy the machine is."""

    def end(*_: Any) -> None:
        raise OutOfTime

    signal.signal(signal.SIGXCPU, end)
    spent = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, spent + seconds + 30))


def one(name: str, path: Path, seconds: int) -> None:
    """Measure one network and write what is known of it to `path`, whatever happens."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known: dict[str, Any] = {"name": name}

    def record(**values: Any) -> None:
        known.update(values, memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        path.write_text(json.dumps(known))

    try:
        measure(name, record, seconds)
    except OutOfTime:
        record(failed=f"no end within {seconds} seconds")
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        place = "" if kind == "UserError" else f" ({Path(frame.filename).name}, line {frame.lineno})"
        record(failed=f"{kind}: {error}{place}")


# -- all of them -------------------------------------------------------------------------------------------


def watch(name: str, seconds: int, gigabytes: float) -> dict[str, Any]:
    """Measure one network in a process of its own that can't take the machine along."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        command = [sys.executable, __file__, "--one", name, "--output", str(path), "--seconds", str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline, trouble = time.monotonic() + 10 * seconds, None
        while process.poll() is None and trouble is None:
            time.sleep(0.2)
            if resident(process.pid) > gigabytes * 2**20:
                trouble = f"more than {gigabytes:g} GB"
            elif time.monotonic() > deadline:
                trouble = "the process hangs"
        if trouble:
            process.kill()
            process.wait()
        record = json.loads(path.read_text()) if path.exists() else {"name": name, "stage": "start"}
    if record["stage"] != "done" and "failed" not in record:
        record["failed"] = trouble or f"the process ended with {process.returncode}"
    return record


def resident(pid: int) -> int:
    """Kilobytes of memory that a process holds."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) if found else 0
    return 0


def verdict(record: dict[str, Any]) -> str:
    if "failed" in record:
        return f"no ({record['stage']}): " + " ".join(record["failed"].split())
    if record["independent"] > ENOUGH[record["dtype"]]:
        return "WRONG: masked and slim differ"
    refusals = record["refusals"]
    return f"ok after {refusals} refusal{'s' * (refusals > 1)}" if refusals else "ok"


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: a summary, and a line for every network."""
    kinds = Counter(
        re.split(r"[ :]", verdict(r).replace("ok after", "ok-after-refusals"))[0] for r in records
    )
    lines = [f"{len(records)} networks: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()), ""]
    titles = (
        "network|input|layers|positions|MACs that can go|check|independent|moved|seconds|MB|whole|outcome"
    )
    lines += ["| " + titles.replace("|", " | ") + " |", "|---" * (titles.count("|") + 1) + "|"]
    for r in records:
        cells = [r["name"], r.get("inputs"), r.get("layers"), r.get("positions")]
        cells += [f"{100 * r['share']:.1f} %" if "share" in r else None]
        cells += [
            f"{r[key]:.1e}" if r.get(key) is not None else None
            for key in ("difference", "independent", "moved")
        ]
        reasons = ", ".join(f"{n} {reason}" for reason, n in r.get("reasons", {}).items())
        whole = f"{r['whole']} ({reasons})" if reasons else r.get("whole")
        cells += [r.get("seconds"), r.get("memory"), whole, verdict(r).replace("|", "/")[:300]]
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/zoo.jsonl"), help="a line for every network"
    )
    parser.add_argument("--only", default="", help="networks with this in their names")
    parser.add_argument("--again", action="store_true", help="measure also what the output has already")
    parser.add_argument("--seconds", type=int, default=120, help="processor time for each")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="memory for each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(options.one, options.output, options.seconds)
    known = (
        [json.loads(line) for line in options.output.read_text().splitlines()]
        if options.output.exists()
        else []
    )
    records = {record["name"]: record for record in known}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in (entry.name for entry in NETWORKS):
        if options.only in name and (options.again or name not in records):
            records[name] = watch(name, options.seconds, options.gigabytes)
            print(f"{name}: {verdict(records[name])[:160]}", flush=True)
            options.output.write_text("".join(json.dumps(record) + "\n" for record in records.values()))
    options.output.with_suffix(".md").write_text(table(list(records.values())))
    return None


if __name__ == "__main__":
    main()
