"""The networks of a compression: those of the teacher, and those of the student, made from them."""

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
    """Networks of teacher and student by role; both are registered as submodules of the LightningModule.

    Args:
        task: Names the roles.
        partner: Whether a generator that is not compressed is `trained`, `frozen` or `left_out`.

    Attributes:
        teacher: Whole networks, frozen and in eval mode.
        student: Masked copies of them during the search, with ever fewer channels; small dense networks
            after it.
        specs: How to rebuild each network, by `teacher.<role>` and `student.<role>`.
        inputs: Blank inputs of the networks.
    """

    def __init__(self, task: Task, partner: Partner) -> None:
        self.task, self.partner = task, partner
        self.teacher, self.student = nn.ModuleDict(), nn.ModuleDict()
        self.specs: dict[str, NetworkSpec] = {}
        self.inputs = Inputs(task)

    def adopt_teacher(self, role: Role, network: nn.Module, spec: NetworkSpec) -> None:
        """Add a network to the teacher, frozen, and a copy of it to the student."""
        self.teacher[role] = network.eval().requires_grad_(False)
        self.specs[f"teacher.{role}"] = spec
        self.adopt_student(role, copy_network(network), spec)

    def adopt_student(self, role: Role, network: nn.Module, spec: NetworkSpec) -> None:
        """Set a network of the student."""
        self.student[role], self.specs[f"student.{role}"] = network, spec

    def adopt_small(self, role: Role, network: nn.Module) -> None:
        """Set a network of the student that has fewer channels than the teacher's of this role."""
        spec = dataclasses.replace(self.specs[f"teacher.{role}"], widths=channel_widths(network))
        self.adopt_student(role, network, spec)

    def group(self, side: Side) -> NetworkGroup:
        """The student's compressed networks of a side; they share one mask and one budget."""
        compressed = self.task.compressed
        roles = compressed if side is Side.GENERATOR else [role.discriminator for role in compressed]
        return NetworkGroup({role: self.student[role] for role in roles if role in self.teacher})

    @property
    def frozen(self) -> list[Role]:
        """Generators of the student that are neither compressed nor trained."""
        others = [role for role in self.task.generators if role not in self.task.compressed]
        return [role for role in others if role in self.student and self.partner == "frozen"]

    def samples(self, group: NetworkGroup) -> list[Tensor]:
        """Blank inputs (1, C, H, W) of the networks of a group, on which their MACs are counted."""
        return [self._sample(Role(role)) for role in group]

    def _sample(self, role: Role) -> Tensor:
        if role.side is Side.DISCRIMINATOR:
            return self.inputs.discriminated(role.generator, self.teacher[role.generator])
        return self.inputs.source(role, self.teacher[role])

    def sources(self) -> Images:
        """Blank source (1, C, H, W) of each compressed generator."""
        return {role: self.inputs.source(role, self.teacher[role]) for role in self.task.compressed}

    @torch.no_grad()
    def references(self, batch: dict[str, Any]) -> Images:
        """The teacher's images `(B, C, H, W)` by compressed generator."""
        return self.task.generate(self.teacher, batch, self.task.compressed)

    def with_targets(self, batch: dict[str, Any], references: Images | None = None) -> dict[str, Any]:
        """Add the teacher's images as `target` to a batch that has a `source` only.

        Args:
            batch: A batch of the data module.
            references: The teacher's images, if they are known already.
        """
        if "source" not in batch or "target" in batch:
            return batch
        references = references or self.references(batch)
        return {**batch, "target": references[self.task.compressed[0]]}
