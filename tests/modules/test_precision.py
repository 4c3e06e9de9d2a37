"""Whole runs in every precision that Lightning's trainer has, and on devices without double precision."""

from __future__ import annotations

import copy
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_gancompress import load_generator
from lightning_gancompress.cli import main
from lightning_gancompress.pruning import MaskedCost, find_groups

PRECISIONS = ["64-true", "32-true", "bf16-true", "bf16-mixed", "16-mixed"]
DTYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_compression_runs_in_every_precision(
    precision: str, tmp_path: Path, unet: Path, facades: list[str]
) -> None:
    run, option = tmp_path / "run", f"--trainer.precision={precision}"
    distilled = ["--model.distillation=Distillation", "--model.distillation.features=1.0"]
    main(tiny.compression(run, unet, "CollaborativePruning", *facades, *distilled, option))
    small = torch.load(run / "generator.pth", weights_only=True)
    assert {t.dtype for t in small.values() if t.is_floating_point()} == {
        DTYPES.get(precision, torch.float32)
    }
    if precision.endswith("true"):  # with the others, the file is that of 32-true
        main(["export", "--ckpt_path", str(run / "generator.pth")])
    folder = ["--trainer.default_root_dir", str(run)]
    main(["test", "--ckpt_path", str(tiny.last(run)), option, *folder, *tiny.QUICK, *facades])
    figures = json.loads((run / "test" / "results.json").read_text())["networks"]
    assert figures["student"]["macs_exact"] <= 0.3 * figures["teacher"]["macs_exact"]
    photos = ["--data.predict_folder", str(Path(facades[1].partition("=")[2], "test"))]
    main(["predict", "--ckpt_path", str(tiny.last(run)), option, *folder, *tiny.QUICK, *facades, *photos])
    assert load_generator(run / "generator.pth")(torch.zeros(1, 3, 32, 32)).isfinite().all()


class OnDevice(TorchFunctionMode):
    """Emulates Apple's GPUs, on which no tensor is float64.

    All tensors count as on the device, but those that `cpu` returned or that are made from nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.wrong: set[str] = set()
        self.seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        name = getattr(func, "__name__", str(func))
        result = result.view(result.shape) if name == "cpu" else result  # an object of its own
        moved = name == "to" and any(isinstance(x, torch.device) for x in args)
        on_host = not moved and (name == "cpu" or all(x in self.host for x in given))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                self.seen += 1
                if not on_host:
                    self.wrong.add(f"{name} at {''.join(traceback.format_stack(limit=4)[:-1])}")
            if isinstance(tensor, torch.Tensor) and on_host and not any(tensor is x for x in given):
                self.host[tensor] = True
        return result


class NoDouble(Callback):
    """Fails where a run would compute in double precision on its device, or hold such a tensor there."""

    def __init__(self) -> None:
        self.mode = OnDevice()

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        for pruned in module.phase.sides.values():
            pruned.cost = AsOnDevice(pruned.cost, self.mode)
        self.mode.__enter__()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        tensors = [*module.parameters(), *module.buffers(), *tree_leaves(batch)]
        assert [x for x in tensors if isinstance(x, torch.Tensor) and x.dtype == torch.float64] == []

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        self.mode.__exit__(None, None, None)
        assert list(self.mode.wrong)[:1] == []
        assert self.mode.seen  # the budget is compared in double precision, on the host


class AsOnDevice:
    """The cost of a mask, in single precision where the mask is on the emulated device."""

    def __init__(self, cost: MaskedCost, mode: OnDevice) -> None:
        self.cost, self.mode, self.full = cost, mode, cost.full
        self.single = copy.copy(cost)
        self.single._tensors = {at: tuple(x.float() for x in xs) for at, xs in cost._tensors.items()}  # type: ignore[misc]
        for tensor in cost._tensors[torch.device("cpu")]:
            mode.host[tensor] = True

    def __call__(self, mask: torch.Tensor) -> torch.Tensor:
        return (self.cost if mask in self.mode.host else self.single)(mask)


def test_nothing_on_the_device_is_in_double_precision(tmp_path: Path, unet: Path, facades: list[str]) -> None:
    # channels that are cut on the way are counted on the host, which is the device here
    options = ["--trainer.callbacks.slack=1.0", "--trainer.callbacks+=test_precision.NoDouble"]
    main(tiny.compression(tmp_path / "run", unet, "CollaborativePruning", *facades, *options))


def test_costs_are_exact_on_the_host_and_single_elsewhere() -> None:
    network, sample = tiny.Own(4), [torch.zeros(1, 3, 8, 8)]
    groups = find_groups(network, sample)
    cost = MaskedCost(network, groups, sample, "exact")
    assert cost(torch.ones(groups.total)).dtype == torch.float64
    assert cost(torch.ones(groups.total, device="meta")).dtype == torch.float32
