"""The networks inside this project's training checkpoints.

Such a file is an ordinary Lightning checkpoint with one more entry:

    "gancompress": {
        "version": 1, "kind": "teacher" | "compression", "phase": "teacher" | "search" | "finetune",
        "networks": {prefix: NetworkSpec.to_dict()}, "preprocessing": {...},
        "ignored_layers": {"generator": [...]},
    }

and the tensors of the network `prefix`, such as "student.generator", lie in "state_dict" under `prefix` and a
dot. In the search the student is still whole, and "sides.generator.masks.mask" says which channels stay.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import BatchNorm, NetworkSpec, blank_image, channel_widths

KEY = "gancompress"
VERSION = 1


def load_networks(path: str | Path) -> dict[str, tuple[nn.Module, NetworkSpec]]:
    """Return every network of a training checkpoint in eval mode, with its recipe, by prefix.

    The student of a search comes slim.

    Raises:
        UserError: When the file is unreadable or no training checkpoint of this project.
    """
    content = read_torch(Path(path))
    return {
        prefix: network_from_checkpoint(content, Path(path), prefix)
        for prefix in _description(content, path)["networks"]
    }


def network_from_checkpoint(
    content: Any, path: Path, name: str, batch_norm: BatchNorm | None = None
) -> tuple[nn.Module, NetworkSpec]:
    """Return one network of the `content` that `path` had.

    Args:
        content: What the file holds.
        path: Named in messages.
        name: A prefix, or its last part, which then means the network in training, not the teacher.
        batch_norm: Reading that replaces the recorded one, or None.

    Raises:
        UserError: When there is no such network or its tensors don't fit.
    """
    description = _description(content, path)
    recipes, state = description["networks"], content["state_dict"]
    prefix = next((p for p in (name, f"student.{name}", f"networks.{name}") if p in recipes), None)
    if prefix is None:
        raise UserError(f"{path} has no network {name!r}: choose one of {', '.join(recipes)}.")
    try:
        spec = NetworkSpec.from_dict(recipes[prefix]).reading(batch_norm)
        network = spec.build(_under(f"{prefix}.", state)).eval()
    except UserError as error:
        raise UserError(f"{prefix} of {path} can't be loaded: {error}") from error
    role = prefix.removeprefix("student.")
    mask = state.get(f"sides.{role}.masks.mask")
    if description["phase"] == "search" and prefix.startswith("student.") and mask is not None:
        from lightning_gancompress.pruning import slim_by_mask

        sample = blank_image(network, int(description["preprocessing"].get("crop_size", 256)))
        ignored_layers = description.get("ignored_layers", {}).get(role, ())
        network = slim_by_mask(network, mask, [sample], ignored_layers).eval()
        spec = replace(spec, widths=channel_widths(network))
    return network, spec


def is_training_checkpoint(content: Any) -> bool:
    """Tell a Lightning checkpoint, of any project, from other files."""
    return isinstance(content, Mapping) and "state_dict" in content


def _description(content: Any, path: str | Path) -> dict[str, Any]:
    if not is_training_checkpoint(content) or KEY not in content:
        raise UserError(f"{path} is no training checkpoint of this project: it has no entry {KEY!r}.")
    description: dict[str, Any] = content[KEY]
    version = description.get("version")
    if version != VERSION:
        raise UserError(
            f"{path} has format version {version}, and this release reads version {VERSION}: "
            "install the release that wrote it."
        )
    return description


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
