"""Loading of networks from this project's training checkpoints; for their format see `header`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import Header
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.networks import (
    BatchNorm,
    NetworkSpec,
    blank_image,
    channel_widths,
    image_channels,
    pixels,
)
from lightning_gancompress.tasks import Role, Side


def load_networks(path: str | Path, side: Side | None = None) -> dict[str, tuple[nn.Module, NetworkSpec]]:
    """Return the networks of a training checkpoint in eval mode, with their specs, by prefix.

    The student of a search is slimmed by its current mask.

    Args:
        path: The checkpoint.
        side: Generators or discriminators alone; None for both.

    Raises:
        UserError: When the file is unreadable or no training checkpoint of this project.
    """
    path = user_path(path)
    content = read_torch(path)
    return {
        prefix: network_from_checkpoint(content, path, prefix)
        for prefix in Header.of(content, path).networks
        if side in (None, split_prefix(prefix)[1].side)
    }


def split_prefix(prefix: str) -> tuple[str, Role]:
    """Split a prefix into owner ("teacher", "student", or "networks" in teacher training) and role."""
    owner, _, role = prefix.partition(".")
    return owner, Role(role)


def network_from_checkpoint(
    content: Any,
    path: Path,
    name: str,
    batch_norm: BatchNorm | None = None,
    architecture: nn.Module | None = None,
) -> tuple[nn.Module, NetworkSpec]:
    """Return one network of a training checkpoint, in eval mode, and its spec.

    Args:
        content: Content of the file.
        path: Path of the file, for messages.
        name: A prefix, or a role, which then is that of the trained network, not of the teacher. The
            direction of CycleGAN's roles may be left out if only one was compressed.
        batch_norm: Statistics of the batch norms in place of the recorded choice, or None.
        architecture: A network of the same class and arguments before pruning, where the spec lacks the
            arguments.

    Raises:
        UserError: When there is no such network or its tensors don't fit.
    """
    header, state = Header.of(content, path), content["state_dict"]

    def build(prefix: str) -> tuple[nn.Module, NetworkSpec]:
        try:
            spec = header.networks[prefix].reading(batch_norm)
            return spec.build(_under(f"{prefix}.", state), architecture).eval(), spec
        except UserError as error:
            raise UserError(f"{prefix} of {path} can't be loaded: {error}") from error

    prefix = _prefix(header, path, name)
    network, spec = build(prefix)
    owner, role = split_prefix(prefix)
    roles = header.sides.get(role.side, [role])
    mask = state.get(f"sides.{role.side}.masks.mask")
    if (header.phase, owner) != ("search", "student") or role not in roles or mask is None:
        return network, spec
    from lightning_gancompress.pruning import NetworkGroup, slim_by_mask

    group = NetworkGroup({role: build(f"student.{role}")[0] for role in roles})
    left = state.get(f"sides.{role.side}.left")
    whole = left if left is None else NetworkGroup({role: build(f"teacher.{role}")[0] for role in roles})
    size, channels = pixels(header.preprocessing), image_channels(header.preprocessing)
    samples = [blank_image(net, size, channels) for net in group.values()]
    ignored_layers = group.qualified(header.ignored_layers.get(role.side, ()))
    small = slim_by_mask(group, mask, samples, ignored_layers, whole, left)
    network = small.get_submodule(role).eval()
    return network, replace(spec, widths=channel_widths(network))


def _prefix(header: Header, path: Path, name: str) -> str:
    """Return the prefix that `name` stands for."""
    prefixes = header.networks
    for prefix in (name, f"student.{name}", f"networks.{name}"):
        if prefix in prefixes:
            return prefix
    owner, _, side = name.rpartition(".")
    owners = (owner,) if owner else ("student", "networks")
    directions = {
        prefix: role.direction
        for prefix in prefixes
        for prefix_owner, role in [split_prefix(prefix)]
        if prefix_owner in owners and role.side == side and role.direction
    }
    compressed = [role.direction for role in header.compressed]
    chosen = [prefix for prefix in directions if directions[prefix] in compressed] or list(directions)
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        owner = f"{owner}." if owner else ""
        choices = " or ".join(f"{owner}{side}_{directions[prefix]}" for prefix in chosen)
        raise UserError(
            f"{path} has a {side} of each direction: ask for {choices} (on the command line: --network)."
        )
    raise UserError(f"{path} has no network {name!r}: choose one of {', '.join(prefixes)}.")


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
