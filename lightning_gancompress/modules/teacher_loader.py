"""Where the networks of a compression come from: files, objects of the user's, or nowhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lightning_gancompress.checkpoints import load_network, sibling, tensors_for
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import Header, is_training_checkpoint
from lightning_gancompress.checkpoints.training import network_from_checkpoint, split_prefix
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules.counterparts import swapped
from lightning_gancompress.networks import (
    BatchNorm,
    NetworkSpec,
    PatchDiscriminator,
    channel_widths,
    copy_network,
    load_tensors,
    use_image_statistics,
)
from lightning_gancompress.tasks import Pix2Pix, Role, Side, Task
from lightning_gancompress.training.inputs import Inputs
from lightning_gancompress.training.teacher_student import Partner

Missing = Literal["train", "leave_out"]
Made = tuple[nn.Module, NetworkSpec]


def as_it_is(network: nn.Module, spec: NetworkSpec) -> NetworkSpec:
    """The recipe of an object of the user's, who may have changed what its constructor made."""
    spec = dataclasses.replace(spec, widths=channel_widths(network))
    try:
        built = spec.build(network.state_dict())
    except UserError:
        return dataclasses.replace(spec, init_args=None)
    kinds, own = ([(name, type(m)) for name, m in net.named_modules()] for net in (built, network))
    return spec if kinds == own else dataclasses.replace(spec, init_args=None)


class TeacherLoader:
    """Loads the networks that have weights, and makes those that have none.

    Args:
        task: Knows the roles.
        files: One file, beside which or in which the others lie, or a file per role; None without files.
        made: Networks of the user's, by side. Those with weights play the first compressed generator and its
            discriminator; the others are patterns for all of their side, whose weights are in the files.
        own_weights: Whether they have their weights.
        batch_norm: How the generators' batch norms read their statistics.
        partner: What becomes of the generator that is not compressed.
        missing: What becomes of networks without weights.
    """

    def __init__(
        self,
        task: Task,
        files: str | Mapping[str, str] | None,
        made: Mapping[Side, Made],
        own_weights: bool,
        batch_norm: BatchNorm,
        partner: Partner,
        missing: Missing,
    ) -> None:
        self.task, self.files, self.batch_norm = task, files, batch_norm
        first = task.compressed[0]
        roles = {Side.GENERATOR: first, Side.DISCRIMINATOR: first.discriminator}
        self.objects = {roles[side]: network for side, network in made.items()} if own_weights else {}
        self.classes = {} if own_weights else dict(made)
        self.partner, self.missing = partner, missing
        if isinstance(files, Mapping):
            known = (*task.generators, *task.discriminators)
            for role in files:
                if role not in known:
                    raise UserError(f"model.teacher: there is no {role!r} in this task: {', '.join(known)}.")

    def cycles(self, teacher: nn.ModuleDict) -> bool:
        """Whether a task of several generators has them all in the fine-tuning, or there is one only."""
        asked = set(self.task.generators) & set(self.roles())
        both = len(asked) > 1 and (asked <= set(teacher) or self.missing == "train")
        return both or len(self.task.generators) == 1

    def roles(self) -> list[Role]:
        """Networks that the configuration asks for; the generators come first."""
        partners = [role for role in self.task.generators if role not in self.task.compressed]
        generators = [*self.task.compressed, *(partners if self.partner != "left_out" else [])]
        trained = [*self.task.compressed, *(partners if self.partner == "trained" else [])]
        return generators + [role.discriminator for role in trained]

    def load(self) -> dict[Role, Made]:
        """The networks that have weights, by role.

        Raises:
            UserError: A wanted generator has none, or a file can't be used.
        """
        found = {}
        for role in self.roles():
            try:
                made = self._load(role, self._file(role))
            except UserError as error:
                raise UserError(f"model.teacher: {error}") from error
            if made is not None:
                found[role] = made
            elif role in self.task.compressed:
                raise UserError(
                    f"model.teacher: nothing says where the {role} is; give its file, or files by role: "
                    f"model.teacher.{role}."
                )
        return found

    def _file(self, role: Role) -> Path | None:
        if self.files is None:
            return None
        if isinstance(self.files, Mapping):
            return Path(self.files[role]) if role in self.files else None
        path = Path(self.files)
        if path.suffix == ".ckpt":
            return path if self._holds(path, role) else None
        if (role,) == self.task.compressed:
            return path
        beside = sibling(path, role)
        return beside if beside.is_file() and (beside != path or role == self.task.compressed[0]) else None

    def _holds(self, path: Path, role: Role) -> bool:
        """Whether a checkpoint, which has everything in itself, has this network.

        Raises:
            UserError: It is wanted, and the checkpoint is of another task.
        """
        content = read_torch(path)
        if not is_training_checkpoint(content):
            return role == self.task.compressed[0]  # to be refused where it is read
        held = sorted({split_prefix(prefix)[1] for prefix in Header.of(content, path).networks})
        if role in self.task.compressed and role not in held:
            raise UserError(
                f"{path} holds {', '.join(held)}, and {type(self.task).__name__} wants a {role}: set "
                "model.task to the task that it was made with."
            )
        return role in held

    def _load(self, role: Role, path: Path | None) -> Made | None:
        batch_norm = self.batch_norm if role.side is Side.GENERATOR else None
        own = self.objects.get(role) or self.classes.get(role.side)
        ours = path is not None and path.suffix == ".ckpt" and is_training_checkpoint(read_torch(path))
        if own is None or ours:
            return load_network(path, role, batch_norm) if path else None
        # without a file a generator's class may have brought its weights; a discriminator's would be a guess
        if path is None and role not in self.objects and role != self.task.compressed[0]:
            return None
        network, spec = copy_network(own[0]), own[1]
        if role in self.objects:
            spec = as_it_is(network, spec)
        if batch_norm == "image":
            use_image_statistics(network)
            spec = spec.reading("image")
        if path is not None:
            load_tensors(network, tensors_for(own[0], path, role))
        return network, spec

    def read(self, checkpoint: dict[str, Any], path: Path, prefix: str) -> Made:
        """A network as a checkpoint of the compression describes it."""
        own = self.objects.get(split_prefix(prefix)[1])
        return network_from_checkpoint(checkpoint, path, prefix, architecture=own and own[0])

    def make_missing(self, here: Mapping[Role, Made], inputs: Inputs) -> dict[Role, Made | None]:
        """Fresh networks for the roles that have no weights, or None to go without them.

        Args:
            here: Networks that have weights.
            inputs: What the task's networks read.

        Raises:
            UserError: One is needed and can't be made.
        """
        found: dict[Role, Made | None] = {}
        known = dict(here)
        for role in self.roles():
            if role not in here:
                found[role] = None
                if self.missing == "train":
                    found[role] = known[role] = self._make(role, known, inputs)
        return found

    def _make(self, role: Role, networks: Mapping[Role, Made], inputs: Inputs) -> Made:
        if role in self.task.generators:
            if self.partner == "frozen":
                raise UserError(
                    f"model.partner: frozen needs the weights of the {role}, and there are none; give its "
                    "file in model.teacher, or set model.partner to trained or left_out."
                )
            other = networks[self.task.compressed[0]][1]
            if other.init_args is None:
                raise UserError(
                    f"No file holds the {role}, and it can't be made like the other generator, since nobody "
                    f"recorded the arguments of {other.class_path}: give its file in model.teacher, or set "
                    "missing to leave_out."
                )
            spec = swapped(other)
        elif Side.DISCRIMINATOR in self.classes:
            spec = self.classes[Side.DISCRIMINATOR][1]
        else:
            spec = NetworkSpec.of(self._patch_discriminator(role, networks, inputs))
        return spec.build(), spec

    def _patch_discriminator(self, role: Role, networks: Mapping[Role, Made], inputs: Inputs) -> nn.Module:
        generator = role.generator
        channels = inputs.discriminated(generator, networks[generator][0]).shape[1]
        norm: Literal["batch", "instance"] = "batch" if isinstance(self.task, Pix2Pix) else "instance"
        return PatchDiscriminator(channels, norm=norm)
