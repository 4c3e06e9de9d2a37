"""Loading of a compression's networks from files and from the user's objects, and making of missing ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gancompress.checkpoints import load_network, sibling, tensors_for
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.generators import recorded_preprocessing
from lightning_gancompress.checkpoints.header import Change, Header, is_training_checkpoint, refuse_late
from lightning_gancompress.checkpoints.training import network_from_checkpoint, split_prefix
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
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

OWNERS = ("teacher", "student")
Missing = Literal["train", "leave_out"]
NetworkAndSpec = tuple[nn.Module, NetworkSpec]


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are equal, in the precision of the `other`."""
    return one.keys() == other.keys() and all(
        tensor.shape == other[key].shape and torch.equal(tensor.to(other[key]), other[key])
        for key, tensor in one.items()
    )


def actual_spec(network: nn.Module, spec: NetworkSpec) -> NetworkSpec:
    """The spec of a user's object, without `init_args` if the object was changed after construction."""
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
        task: Names the roles.
        files: One file, which holds the other networks or has them beside it, or a file per role; or None.
        own: The user's networks, by side. Those with weights are the first compressed generator and its
            discriminator; those without give class and arguments for all networks of their side.
        own_weights: Whether `own` come with their weights.
        batch_norm: Statistics of the generators' batch norms.
        partner: Whether a generator that is not compressed is `trained`, `frozen` or `left_out`.
        missing: Whether networks without weights are made (`train`) or left out (`leave_out`).
    """

    def __init__(
        self,
        task: Task,
        files: str | Mapping[str, str] | None,
        own: Mapping[Side, NetworkAndSpec],
        own_weights: bool,
        batch_norm: BatchNorm,
        partner: Partner,
        missing: Missing,
    ) -> None:
        self.task, self.files, self.batch_norm = task, files, batch_norm
        first = task.compressed[0]
        roles = {Side.GENERATOR: first, Side.DISCRIMINATOR: first.discriminator}
        self.objects = {roles[side]: network for side, network in own.items()} if own_weights else {}
        self.classes = {} if own_weights else dict(own)
        self.partner, self.missing = partner, missing
        if isinstance(files, Mapping):
            known = (*task.generators, *task.discriminators)
            for role in files:
                if role not in known:
                    raise UserError(f"model.teacher: there is no {role!r} in this task: {', '.join(known)}.")

    def cycles(self, teacher: nn.ModuleDict) -> bool:
        """Whether the fine-tuning has both generators of a cycle; True for a task of one generator."""
        configured = set(self.task.generators) & set(self.roles())
        both = len(configured) > 1 and (configured <= set(teacher) or self.missing == "train")
        return both or len(self.task.generators) == 1

    def roles(self) -> list[Role]:
        """Roles of all networks that the configuration needs; the generators come first."""
        partners = [role for role in self.task.generators if role not in self.task.compressed]
        generators = [*self.task.compressed, *(partners if self.partner != "left_out" else [])]
        trained = [*self.task.compressed, *(partners if self.partner == "trained" else [])]
        return generators + [role.discriminator for role in trained]

    def load(self) -> dict[Role, NetworkAndSpec]:
        """The networks that have weights, by role.

        Raises:
            UserError: A compressed generator has no weights, or a file can't be used.
        """
        networks = {}
        for role in self.roles():
            try:
                loaded = self._load(role, self._file(role))
            except UserError as error:
                raise UserError(f"model.teacher: {error}") from error
            if loaded is not None:
                networks[role] = loaded
            elif role in self.task.compressed:
                raise UserError(
                    f"model.teacher: no weights are given for the {role}: give its file, or files by role "
                    f"(model.teacher.{role})."
                )
        return networks

    def preprocessing(self) -> dict[Path, dict[str, Any]]:
        """How images became inputs of the compressed generators, by their files; empty where none tells."""
        files = {self._file(role) for role in self.task.compressed}
        return {path: recorded_preprocessing(path) for path in files if path is not None}

    def _file(self, role: Role) -> Path | None:
        if self.files is None:
            return None
        if isinstance(self.files, Mapping):
            return user_path(self.files[role]) if role in self.files else None
        path = user_path(self.files)
        if path.suffix == ".ckpt":
            return path if self._holds(path, role) else None
        if (role,) == self.task.compressed:
            return path
        beside = sibling(path, role)
        return beside if beside.is_file() and (beside != path or role == self.task.compressed[0]) else None

    def _holds(self, path: Path, role: Role) -> bool:
        """Whether a checkpoint holds this network.

        Raises:
            UserError: It does not hold a compressed generator, since it is of another task, or it is of a
                search, whose student would come cut by masks and untrained.
        """
        content = read_torch(path)
        if not is_training_checkpoint(content):
            return role == self.task.compressed[0]  # the error is raised where it is read
        header = Header.of(content, path)
        if header.phase == "search":
            raise UserError(
                f"{path} is of a search that isn't over: finish that run, or give its own teacher."
            )
        held = sorted({split_prefix(prefix)[1] for prefix in header.networks})
        if role in self.task.compressed and role not in held:
            raise UserError(
                f"{path} holds {', '.join(held)}, and {type(self.task).__name__} needs a {role}: set "
                "model.task to the task that it was made with."
            )
        return role in held

    def _load(self, role: Role, path: Path | None) -> NetworkAndSpec | None:
        batch_norm = self.batch_norm if role.side is Side.GENERATOR else None
        own = self.objects.get(role) or self.classes.get(role.side)
        ours = path is not None and path.suffix == ".ckpt" and is_training_checkpoint(read_torch(path))
        if own is None or ours:
            return load_network(path, role, batch_norm) if path else None
        # without a file only the first compressed generator may have loaded its weights in its constructor
        if path is None and role not in self.objects and role != self.task.compressed[0]:
            return None
        network, spec = copy_network(own[0]).cpu().float(), own[1]  # the trainer chooses device and precision
        if role in self.objects:
            spec = actual_spec(network, spec)
        if batch_norm == "image":
            use_image_statistics(network)
            spec = spec.reading("image")
        if path is not None:
            load_tensors(network, tensors_for(own[0], path, role))
        return network, spec

    def read(self, checkpoint: dict[str, Any], path: Path, prefix: str) -> NetworkAndSpec:
        """The network `prefix` of a compression's checkpoint."""
        own = self.objects.get(split_prefix(prefix)[1])
        return network_from_checkpoint(checkpoint, path, prefix, architecture=own and own[0])

    def require_same_networks(self, header: Header, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Check that a resumed compression has the teacher and the networks that it began with.

        A teacher's file that is gone is not missed, since checkpoints hold the teacher.

        Args:
            header: Header of the checkpoint.
            tensors: The checkpoint's "state_dict".
            path: Path of the checkpoint, for messages.

        Raises:
            UserError: Weights or options differ.
        """
        roles = {owner: {r for o, r in map(split_prefix, header.networks) if o == owner} for owner in OWNERS}
        norms = {header.networks[f"teacher.{role}"].batch_norm for role in self.task.compressed}
        changes: list[Change] = [("model.batch_norm", norm, self.batch_norm) for norm in norms]
        if header.phase == "finetune":
            if roles["student"] - roles["teacher"]:
                changes.append(("model.missing", "train", self.missing))
            elif set(self.roles()) - roles["student"]:
                changes.append(("model.missing", "leave_out", self.missing))
        refuse_late(changes, path)
        for role, (network, _) in self._load_present().items():
            prefix = f"teacher.{role}."
            held = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
            if role not in roles["teacher"] or not same_tensors(network.state_dict(), held):
                raise UserError(
                    f"model.teacher: the {role} is not the one that {path} began with: give that one, or "
                    "null (the checkpoint holds it), or begin anew."
                )

    def _load_present(self) -> dict[Role, NetworkAndSpec]:
        """The networks whose weights were given, as `load`; none if a file is gone."""
        files = [self.files] if isinstance(self.files, str) else [*(self.files or {}).values()]
        if not (files or self.objects) or not all(user_path(file).is_file() for file in files):
            return {}
        return {role: loaded for role, loaded in self.load().items() if files or role in self.objects}

    def make_missing(
        self, loaded: Mapping[Role, NetworkAndSpec], inputs: Inputs
    ) -> dict[Role, NetworkAndSpec | None]:
        """New networks for the roles that have no weights; None for roles that are left out.

        Args:
            loaded: Networks that have weights.
            inputs: Blank inputs of the task's networks.

        Raises:
            UserError: A network is needed and can't be made.
        """
        missing: dict[Role, NetworkAndSpec | None] = {}
        known = dict(loaded)
        for role in self.roles():
            if role not in loaded:
                missing[role] = None
                if self.missing == "train":
                    missing[role] = known[role] = self._make(role, known, inputs)
        return missing

    def _make(self, role: Role, networks: Mapping[Role, NetworkAndSpec], inputs: Inputs) -> NetworkAndSpec:
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
            if spec.init_args is None:
                raise UserError(
                    f"model.discriminator: no file holds the weights of the {role}, and another "
                    f"{spec.class_path} can't be made, since its arguments are not recorded: set "
                    "model.own_weights to true if it comes with its weights, or name its file in "
                    f"model.teacher.{role}."
                )
        else:
            spec = NetworkSpec.of(self._patch_discriminator(role, networks, inputs))
        return spec.build(), spec

    def _patch_discriminator(
        self, role: Role, networks: Mapping[Role, NetworkAndSpec], inputs: Inputs
    ) -> nn.Module:
        generator = role.generator
        channels = inputs.discriminated(generator, networks[generator][0]).shape[1]
        norm: Literal["batch", "instance"] = "batch" if isinstance(self.task, Pix2Pix) else "instance"
        return PatchDiscriminator(channels, norm=norm)
