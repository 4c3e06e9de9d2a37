"""The networks of a compression: the teacher's, and the student's that are cut out of them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gancompress.networks import NetworkSpec, channel_widths, copy_network
from lightning_gancompress.pruning import NetworkGroup
from lightning_gancompress.tasks import Images, Role, Side, Task
from lightning_gancompress.training.inputs import Inputs

Partner = Literal["trained", "frozen", "left_out"]


class TeacherStudent:
    """Teacher and student of a task, by role. The LightningModule owns their tensors.

    Args:
        task: Knows the roles.
        partner: What becomes of the generators that are not compressed.

    Attributes:
        teacher: Whole networks, frozen and in eval mode.
        student: Their copies under masks while the search runs, then small ones.
        specs: What rebuilds each network, by `teacher.<role>` and `student.<role>`.
        inputs: What the networks read.
    """

    def __init__(self, task: Task, partner: Partner) -> None:
        self.task, self.partner = task, partner
        self.teacher, self.student = nn.ModuleDict(), nn.ModuleDict()
        self.specs: dict[str, NetworkSpec] = {}
        self.inputs = Inputs(task)

    def adopt_teacher(self, role: Role, network: nn.Module, spec: NetworkSpec) -> None:
        """Take a network for the teacher's, and a copy of it for the student's."""
        self.teacher[role] = network.eval().requires_grad_(False)
        self.specs[f"teacher.{role}"] = spec
        self.adopt_student(role, copy_network(network), spec)

    def adopt_student(self, role: Role, network: nn.Module, spec: NetworkSpec) -> None:
        """Take a network for the student's."""
        self.student[role], self.specs[f"student.{role}"] = network, spec

    def adopt_small(self, role: Role, network: nn.Module) -> None:
        """Take a network that was cut out of the teacher's for the student's."""
        spec = dataclasses.replace(self.specs[f"teacher.{role}"], widths=channel_widths(network))
        self.adopt_student(role, network, spec)

    def group(self, side: Side) -> NetworkGroup:
        """The student's networks of a side that are compressed together."""
        compressed = self.task.compressed
        roles = compressed if side is Side.GENERATOR else [role.discriminator for role in compressed]
        return NetworkGroup({role: self.student[role] for role in roles if role in self.teacher})

    @property
    def frozen(self) -> list[Role]:
        """Generators of the student that stay as they are."""
        others = [role for role in self.task.generators if role not in self.task.compressed]
        return [role for role in others if role in self.student and self.partner == "frozen"]

    def samples(self, group: NetworkGroup) -> list[Tensor]:
        """Blank inputs of the networks of a group, like those of the data: MACs are counted for them."""
        return [self._sample(Role(role)) for role in group]

    def _sample(self, role: Role) -> Tensor:
        if role.side is Side.DISCRIMINATOR:
            return self.inputs.discriminated(role.generator, self.teacher[role.generator])
        return self.inputs.source(role, self.teacher[role])

    def sources(self) -> Images:
        """What each compressed generator reads, blank."""
        return {role: self.inputs.source(role, self.teacher[role]) for role in self.task.compressed}

    @torch.no_grad()
    def with_targets(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of sources alone gets the teacher's images as targets."""
        if "source" not in batch or "target" in batch:
            return batch
        return {**batch, "target": self.teacher[self.task.compressed[0]](batch["source"])}
