"""Roles: the names of a task's networks."""

from __future__ import annotations

import re
from enum import Enum

from lightning_gancompress.errors import UserError


class Side(str, Enum):
    """The two sides of a GAN: generators and discriminators. Each side is pruned as one."""

    GENERATOR = "generator"
    DISCRIMINATOR = "discriminator"

    __str__ = str.__str__  # "generator", as an f-string has it in Python 3.11 and before

    @property
    def peer(self) -> Side:
        """The other side."""
        return Side.DISCRIMINATOR if self is Side.GENERATOR else Side.GENERATOR


class Role(str):
    """The role of a network in a task: its side and, where a side has several networks, a direction.

    A role is a string such as `generator` or `discriminator_AtoB`, and a valid key of an `nn.ModuleDict`.
    Files hold it as a plain string: `str(role)`.

    Raises:
        UserError: The name does not begin with a side.
    """

    __slots__ = ()

    def __new__(cls, name: str) -> Role:
        """Check the name."""
        if not re.fullmatch(r"(generator|discriminator)(_\w{1,40})?", name):  # it is part of file names
            raise UserError(
                f"{name!r} is no role of a network: it must be generator or discriminator, with a direction "
                "after an underscore where there are several (generator_AtoB)."
            )
        return super().__new__(cls, name)

    @classmethod
    def of(cls, side: Side, direction: str = "") -> Role:
        """The role of a side and a direction."""
        return cls(f"{side.value}_{direction}" if direction else side.value)

    @property
    def side(self) -> Side:
        """Side of the GAN."""
        return Side(self.partition("_")[0])

    @property
    def direction(self) -> str:
        """`AtoB` of `generator_AtoB`; empty for `generator`."""
        return self.partition("_")[2]

    @property
    def suffix(self) -> str:
        """Suffix of its file names: `_AtoB`, or empty without a direction."""
        return f"_{self.direction}" if self.direction else ""

    @property
    def log_prefix(self) -> str:
        """Prefix of the logged names of its metrics: `AtoB/`, or empty without a direction."""
        return f"{self.direction}/" if self.direction else ""

    @property
    def direction_text(self) -> str:
        """The direction as text for people: `A to B`, or empty."""
        return " to ".join(self.direction.split("to")) if self.direction else ""

    @property
    def discriminator(self) -> Role:
        """Role of the discriminator of the same direction."""
        return Role.of(Side.DISCRIMINATOR, self.direction)

    @property
    def generator(self) -> Role:
        """Role of the generator of the same direction."""
        return Role.of(Side.GENERATOR, self.direction)

    @property
    def partner(self) -> Role | None:
        """Role of the same side in the opposite direction, or None without a direction."""
        way = re.fullmatch(r"(\w+?)to(\w+)", self.direction)
        return Role.of(self.side, f"{way[2]}to{way[1]}") if way else None
