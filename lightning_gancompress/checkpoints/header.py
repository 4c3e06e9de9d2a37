"""The networks inside this project's training checkpoints.

Such a file is an ordinary Lightning checkpoint with one more entry:

    "gancompress": {
        "version": 1, "kind": "teacher" | "compression", "phase": "teacher" | "search" | "finetune",
        "networks": {prefix: NetworkSpec.to_dict()}, "preprocessing": {...}, "wanted": [role, ...],
        "sides": {"generator": [role, ...], ...}, "ignored_layers": {"generator": [...]},
    }

and the tensors of the network `prefix`, such as "student.generator", lie in "state_dict" under `prefix` and a
dot; "wanted" are the generators that were compressed. In the search the student is still whole, and
"sides.generator.masks.mask" says which channels of all networks of that side stay.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import (
    BatchNorm,
    NetworkSpec,
    blank_image,
    channel_widths,
    image_channels,
    pixels,
)

KEY = "gancompress"
VERSION = 1


def load_networks(path: str | Path, kind: str = "") -> dict[str, tuple[nn.Module, NetworkSpec]]:
    """Return the networks of a training checkpoint in eval mode, with their recipes, by prefix.

    The student of a search comes slim.

    Args:
        path: The checkpoint.
        kind: "generator" or "discriminator" for these alone.

    Raises:
        UserError: When the file is unreadable or no training checkpoint of this project.
    """
    content = read_torch(Path(path))
    return {
        prefix: network_from_checkpoint(content, Path(path), prefix)
        for prefix in _description(content, path)["networks"]
        if kind in prefix
    }


def network_from_checkpoint(
    content: Any,
    path: Path,
    name: str,
    batch_norm: BatchNorm | None = None,
    architecture: nn.Module | None = None,
) -> tuple[nn.Module, NetworkSpec]:
    """Return one network of the `content` that `path` had.

    Args:
        content: What the file holds.
        path: Named in messages.
        name: A prefix, or its last part, which then means the network in training, not the teacher. Of
            CycleGAN's, the direction may be left out where only one was compressed.
        batch_norm: Reading that replaces the recorded one, or None.
        architecture: Such a network, whole, where its recipe lacks the arguments of its class.

    Raises:
        UserError: When there is no such network or its tensors don't fit.
    """
    description = _description(content, path)
    recipes, state = description["networks"], content["state_dict"]

    def build(prefix: str) -> tuple[nn.Module, NetworkSpec]:
        try:
            spec = NetworkSpec.from_dict(recipes[prefix]).reading(batch_norm)
            return spec.build(_under(f"{prefix}.", state), architecture).eval(), spec
        except UserError as error:
            raise UserError(f"{prefix} of {path} can't be loaded: {error}") from error

    prefix = _prefix(description, path, name)
    network, spec = build(prefix)
    part, _, role = prefix.partition(".")
    side = role.partition("_")[0]
    roles = description.get("sides", {}).get(side, [side])
    mask = state.get(f"sides.{side}.masks.mask")
    if (description["phase"], part) != ("search", "student") or role not in roles or mask is None:
        return network, spec
    from lightning_gancompress.pruning import NetworkGroup, slim_by_mask

    bundle = NetworkGroup({role: build(f"student.{role}")[0] for role in roles})
    recorded = description["preprocessing"]
    samples = [blank_image(net, pixels(recorded), image_channels(recorded)) for net in bundle.values()]
    ignored_layers = bundle.qualified(description.get("ignored_layers", {}).get(side, ()))
    network = slim_by_mask(bundle, mask, samples, ignored_layers).get_submodule(role).eval()
    return network, replace(spec, widths=channel_widths(network))


def _prefix(description: dict[str, Any], path: Path, name: str) -> str:
    """Return the prefix that `name` stands for."""
    recipes: dict[str, Any] = description["networks"]
    for prefix in (name, f"student.{name}", f"networks.{name}"):
        if prefix in recipes:
            return prefix
    part, _, kind = name.rpartition(".")
    directed = re.compile(rf"(?:{re.escape(part) or 'student|networks'})\.{re.escape(kind)}_([AB]to[AB])")
    found = {prefix: match[1] for prefix in recipes if (match := directed.fullmatch(prefix))}
    wanted = [role.rpartition("_")[2] for role in description.get("wanted", ())]
    chosen = [prefix for prefix in found if found[prefix] in wanted] or list(found)
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        part = f"{part}." if part else ""
        choices = " or ".join(f"{part}{kind}_{found[prefix]}" for prefix in chosen)
        raise UserError(
            f"{path} has a {kind} of each direction: ask for {choices} (on the command line: --network)."
        )
    raise UserError(f"{path} has no network {name!r}: choose one of {', '.join(recipes)}.")


def is_training_checkpoint(content: Any) -> bool:
    """Tell a training checkpoint of this project from other files."""
    return isinstance(content, Mapping) and "state_dict" in content and KEY in content


def _description(content: Any, path: str | Path) -> dict[str, Any]:
    if not is_training_checkpoint(content):
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
