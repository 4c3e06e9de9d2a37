"""Specs of the networks of the opposite direction, derived from those of one direction."""

from __future__ import annotations

import dataclasses

from lightning_gancompress.networks import NetworkSpec


def swapped(generator: NetworkSpec) -> NetworkSpec:
    """The spec of the opposite generator: input and output channels are exchanged."""
    args = generator.init_args or {}
    ends = {"in_channels": args.get("out_channels"), "out_channels": args.get("in_channels")}
    return dataclasses.replace(
        generator, init_args={name: ends.get(name) or value for name, value in args.items()}, widths=None
    )


def discriminating(discriminator: NetworkSpec, generator: NetworkSpec) -> NetworkSpec:
    """The spec of the opposite discriminator: its input channels are those of `generator`."""
    args, channels = discriminator.init_args or {}, (generator.init_args or {}).get("in_channels")
    known = {"in_channels": channels} if channels and "in_channels" in args else {}
    return dataclasses.replace(discriminator, init_args=args | known, widths=None)
