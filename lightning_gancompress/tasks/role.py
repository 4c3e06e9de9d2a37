"""Roles: which network of a task is meant."""

from __future__ import annotations

import re
from enum import Enum

from lightning_gancompress.errors import UserError


class Side(str, Enum):
    """The two sides of a GAN: all generators that are compressed, and all their discriminators."""

    GENERATOR = "generator"
    DISCRIMINATOR = "discriminator"

    __str__ = str.__str__  # "generator", as an f-string has it in Python 3.11 and before

    @property
    def peer(self) -> Side:
        """The other side."""
        return Side.DISCRIMINATOR if self is Side.GENERATOR else Side.GENERATOR


class Role(str):
    """The role of a network in a task: its side and, where there are several of a side, a direction.

    A role is its name, such as `generator` or `discriminator_AtoB`, so it can be a key of an `nn.ModuleDict`.
    Files hold that name as a plain string: `str(role)`.

    Raises:
        UserError: The name begins with no side.
    """

    __slots__ = ()

    def __new__(cls, name: str) -> Role:
        """Check the name."""
        if name.partition("_")[0] not in (Side.GENERATOR.value, Side.DISCRIMINATOR.value):
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
        """Which side of the GAN it is on."""
        return Side(self.partition("_")[0])

    @property
    def direction(self) -> str:
        """`AtoB` of `generator_AtoB`; empty where there is one of a side only."""
        return self.partition("_")[2]

    @property
    def suffix(self) -> str:
        """What tells its files from those of other directions: `_AtoB`, or nothing."""
        return f"_{self.direction}" if self.direction else ""

    @property
    def log_prefix(self) -> str:
        """What stands before the names of its metrics: `AtoB/`, or nothing."""
        return f"{self.direction}/" if self.direction else ""

    @property
    def words(self) -> str:
        """Its direction in words: `A to B`, or nothing."""
        return " to ".join(self.direction.split("to")) if self.direction else ""

    @property
    def discriminator(self) -> Role:
        """The discriminator of a generator's images."""
        return Role.of(Side.DISCRIMINATOR, self.direction)

    @property
    def generator(self) -> Role:
        """The generator whose images a discriminator sees."""
        return Role.of(Side.GENERATOR, self.direction)

    @property
    def partner(self) -> Role | None:
        """The network of the same side for the way back, or None where there is one direction only."""
        way = re.fullmatch(r"(\w+?)to(\w+)", self.direction)
        return Role.of(self.side, f"{way[2]}to{way[1]}") if way else None
