"""Recipes of the networks for the way back, after the pattern of those for the way there."""

from __future__ import annotations

import dataclasses

from lightning_gancompress.networks import NetworkSpec


def swapped(generator: NetworkSpec) -> NetworkSpec:
    """The recipe of a generator for the way back: it reads what this one writes."""
    args = generator.init_args or {}
    ends = {"in_channels": args.get("out_channels"), "out_channels": args.get("in_channels")}
    return dataclasses.replace(
        generator, init_args={name: ends.get(name) or value for name, value in args.items()}, widths=None
    )


def discriminating(discriminator: NetworkSpec, generator: NetworkSpec) -> NetworkSpec:
    """The recipe of a discriminator for the way back: it reads images like the sources of `generator`."""
    args, channels = discriminator.init_args or {}, (generator.init_args or {}).get("in_channels")
    known = {"in_channels": channels} if channels and "in_channels" in args else {}
    return dataclasses.replace(discriminator, init_args=args | known, widths=None)
