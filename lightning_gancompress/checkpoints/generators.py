"""The generators in a file of any kind, and their recorded preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from lightning_gancompress.checkpoints import load_network, load_networks
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import Header, is_training_checkpoint
from lightning_gancompress.checkpoints.small import is_small_model, read_description
from lightning_gancompress.checkpoints.training import split_prefix
from lightning_gancompress.checkpoints.upstream import direction_in_name, upstream_preprocessing
from lightning_gancompress.tasks import Role, Side


class GeneratorName(NamedTuple):
    """Name of a generator: teacher or student, and its role.

    As text it is `teacher`, or `student_AtoB` for CycleGAN.
    """

    part: Literal["teacher", "student"]
    role: Role

    def __str__(self) -> str:
        return f"{self.part}{self.role.suffix}"


def generators_in(path: Path) -> dict[GeneratorName, nn.Module]:
    """All generators of a file, in eval mode.

    Args:
        path: A file that `load_network` reads. Only training checkpoints hold several generators. A small
            model is a student; any other file with a single generator is a teacher.

    Raises:
        UserError: The file is missing, damaged, or holds something else.
    """
    if is_small_model(path) or not is_training_checkpoint(read_torch(path)):
        role = Role.of(Side.GENERATOR, direction_in_name(path) or "")
        name = GeneratorName("student" if is_small_model(path) else "teacher", role)
        return {name: load_network(path)[0]}
    generators = {}
    for prefix, (network, _) in load_networks(path, Side.GENERATOR).items():
        owner, role = split_prefix(prefix)
        generators[GeneratorName("student" if owner == "student" else "teacher", role)] = network
    return generators


class Recorded(NamedTuple):
    """What a file says of its networks.

    Attributes:
        preprocessing: How images become their inputs, in plain types; empty if it doesn't tell.
        phase: Phase of the run that wrote it; in a `search` a student is cut by its current masks. Empty if
            the file is no training checkpoint.
    """

    preprocessing: dict[str, Any]
    phase: str = ""


def recorded(path: Path) -> Recorded:
    """What a file says of its networks.

    Raises:
        UserError: The file is missing or damaged.
    """
    if is_small_model(path):
        return Recorded(dict(read_description(path)["preprocessing"]))
    content = read_torch(path)
    if is_training_checkpoint(content):
        header = Header.of(content, path)
        return Recorded(header.preprocessing, header.phase)
    return Recorded(upstream_preprocessing(path))


def recorded_preprocessing(path: Path) -> dict[str, Any]:
    """The preprocessing of images that a file records; empty if it records none.

    Raises:
        UserError: The file is missing or damaged.
    """
    return recorded(path).preprocessing
