"""The checkpoint with which the run of a larger budget begins: a search that stands at the border."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_gancompress.checkpoints.header import KEY
from lightning_gancompress.checkpoints.recorded_settings import KEY as SETTINGS
from lightning_gancompress.lightning_internals import content_of_checkpoint
from lightning_gancompress.modules.base import GANModule
from lightning_gancompress.run_folder import BORDER, folder_of_budget
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.tasks import Side

# entries of the run that goes on; those of the new one begin empty
NEW: dict[str, Any] = {
    "epoch": 0,
    "global_step": 0,
    "callbacks": {},
    "optimizer_states": [],
    "lr_schedulers": [],
}
KEPT = ("pytorch-lightning_version", "hparams_name", "hyper_parameters", SETTINGS)


def save_border(module: GANModule, search: SearchPhase, budget: float | str) -> None:
    """Write `budget_<b>/checkpoints/border.ckpt` into the run's folder; called on all ranks.

    It holds teacher, masked student and the masks that fit into the budget, and is read as any checkpoint of
    a search. A `fit` that is given it begins with the fine-tuning.

    Args:
        module: The module that searches.
        search: Its search, which is not changed.
        budget: One of `search.passes`.
    """
    trainer = module.trainer
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    masks = {side: trainer.strategy.broadcast(m) for side, m in search.choose(search.passes[budget]).items()}
    folder = folder_of_budget(Path(trainer.default_root_dir), budget)
    path = folder / BORDER
    if trainer.is_global_zero:
        path.parent.mkdir(parents=True, exist_ok=True)
    drawn = search.masks()
    search.set_masks(masks)
    content = as_new_run(content_of_checkpoint(trainer), module, budget, folder)
    trainer.strategy.save_checkpoint(content, path)
    search.set_masks(drawn)  # not before: the content is no copy
    trainer.strategy.barrier("save_border")
    share = {
        str(side): float(search.sides[side].cost(m)) / search.sides[side].cost.full
        for side, m in masks.items()
    }
    words = " and ".join(f"{100 * value:.3g} % of the {side}'s MACs" for side, value in share.items())
    rank_zero_info(f"Budget {budget}: kept after {module.epochs_done:.3g} epoch(s) with {words}: {path}")


def as_new_run(
    content: dict[str, Any], module: GANModule, budget: float | str, folder: Path
) -> dict[str, Any]:
    """The content of a checkpoint of the search, as that of a run in `folder` that is at its border."""
    header = module.header()
    assert header.search is not None
    budgets = {**header.search.budgets, Side.GENERATOR: budget}
    search = replace(header.search, budgets=budgets, passes=[])
    kept = {name: copy.deepcopy(content[name]) for name in KEPT if name in content}
    one = {"budget": budget, "quality": None}
    if SETTINGS in kept:
        kept[SETTINGS]["model"]["init_args"] |= one
        kept[SETTINGS]["trainer"]["default_root_dir"] = str(folder)
    if "budget" in kept.get("hyper_parameters", {}):
        kept["hyper_parameters"] |= one
    state = {name: tensor for name, tensor in content["state_dict"].items() if not name.startswith("agents.")}
    entry = replace(header, began=0, search=search, epoch={}, passed=[]).to_dict()
    return {**NEW, **kept, "state_dict": state, KEY: entry}
