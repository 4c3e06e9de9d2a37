"""The generators in a file of any kind, and their recorded preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from lightning_gancompress.checkpoints import load_network, load_networks
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import Header, is_training_checkpoint
from lightning_gancompress.checkpoints.small import read_description
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


def recorded_preprocessing(path: Path) -> dict[str, Any]:
    """The preprocessing of images that a file records; empty if it records none.

    Raises:
        UserError: The file is missing or damaged.
    """
    if is_small_model(path):
        return dict(read_description(path.with_suffix(".json"))["preprocessing"])
    content = read_torch(path)
    if is_training_checkpoint(content):
        return Header.of(content, path).preprocessing
    return dict(upstream_preprocessing(path))


def is_masked(path: Path, network: str) -> bool:
    """Whether a network of a file is the student of a search, which its current masks will cut.

    Raises:
        UserError: The file is missing or damaged.
    """
    if is_small_model(path) or network.startswith("teacher"):
        return False
    content = read_torch(path)
    return is_training_checkpoint(content) and Header.of(content, path).phase == "search"


def is_small_model(path: Path) -> bool:
    """Whether a file is a small model: a `.pth` with a `.json` beside it."""
    return path.suffix == ".pth" and path.with_suffix(".json").is_file()
