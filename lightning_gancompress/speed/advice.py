"""Measured advice, in sentences and as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_gancompress.errors import UserError
from lightning_gancompress.files import write_files
from lightning_gancompress.schema import items, read_json, texts

NOTABLE = 1.05  # times as fast: less is noise
IDLE = 0.6  # of the teacher's MACs per second: below, the small network leaves the device waiting


@dataclass(frozen=True)
class WidthTime:
    """Latency of a network with random weights, cut to the budget with widths in multiples of a number.

    Attributes:
        ms: Median milliseconds of an image.
        speedup: Against the whole network, in turn.
        macs_ratio: MACs of the whole network divided by its own: the ideal speed-up.
    """

    ms: float
    speedup: float
    macs_ratio: float


@dataclass(frozen=True)
class LayerTime:
    """The part of a layer in the time and in the MACs of its network, from 0 to 1."""

    name: str
    time: float
    macs: float


@dataclass(frozen=True)
class SpeedAdvice:
    """What was measured.

    Attributes:
        device: Name of the device, and the runtime.
        size: Height and width of the images.
        budget: MACs of the cut networks, relative to the whole one.
        widths: Latency of cut networks, by `channel_multiple`; empty where there is no whole network.
        threads: Median milliseconds of an image, by CPU threads; of the smallest network at hand, as the
            following.
        batches: Median milliseconds for each image of a batch, by batch size.
        layers: The layers that take most of the time, in torch.
    """

    device: str
    size: tuple[int, int]
    budget: float
    widths: dict[int, WidthTime]
    threads: dict[int, float]
    batches: dict[int, float]
    layers: list[LayerTime]

    def sentences(self) -> list[str]:
        """The advice in sentences."""
        height, width = self.size
        return [f"Speed on {self.device}, images of {height} x {width} pixels.", *self._sentences()]

    def _sentences(self) -> Iterator[str]:
        if self.widths:
            yield from self._of_widths()
        if len(self.threads) > 1:
            best = min(self.threads, key=lambda n: self.threads[n])
            times = ", ".join(f"{n}: {ms:.3g} ms" for n, ms in self.threads.items())
            yield f"An image by threads: {times}; {best} {'is' if best == 1 else 'are'} fastest."
        if len(self.batches) > 1:
            yield self._of_batches()
        if self.layers:
            parts = (f"{layer.name} {layer.time:.0%} (of the MACs {layer.macs:.0%})" for layer in self.layers)
            yield f"Most of the time goes into {', '.join(parts)}."

    def _of_widths(self) -> Iterator[str]:
        times = ", ".join(f"{multiple}: {width.ms:.3g} ms" for multiple, width in self.widths.items())
        first, base = next(iter(self.widths.items()))
        best = min(self.widths, key=lambda multiple: self.widths[multiple].ms)
        gain = base.ms / self.widths[best].ms
        yield f"An image by channel_multiple, random weights, {self.budget:.3g} of the MACs: {times}."
        if gain >= NOTABLE:
            yield f"channel_multiple {best} is {gain:.2f} times as fast as {first}."
        else:
            yield f"No channel_multiple is faster than {first} by more than measurements vary: leave it."
        fastest = self.widths[best]
        if fastest.speedup < IDLE * fastest.macs_ratio:
            yield (
                f"With {fastest.macs_ratio:.3g} times fewer MACs it is {fastest.speedup:.3g} times as fast "
                "as the whole network: narrow layers under-use this device."
            )

    def _of_batches(self) -> str:
        times = ", ".join(f"{n}: {ms:.3g} ms" for n, ms in self.batches.items())
        alone, best = self.batches[min(self.batches)], min(self.batches, key=lambda n: self.batches[n])
        gain, verdict = alone / self.batches[best], "batches gain nothing"
        if gain >= NOTABLE:
            verdict = f"batches of {best} are {gain:.2f} times as fast"
        return f"An image by batch size: {times}; {verdict}."


def write_advice(path: Path, advice: list[str]) -> None:
    """Write sentences, for the report."""
    write_files({path: (json.dumps({"version": 1, "advice": advice}, indent=2) + "\n").encode()})


def read_advice(path: Path) -> list[str]:
    """The sentences of a file of `write_advice`; none if there is no such file.

    Raises:
        UserError: It holds something else.
    """
    if not path.is_file():
        return []
    try:
        return texts(dict(items(read_json(path), "it")).get("advice"), "advice")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} holds no advice on speed ({error}): remove it, or profile again.") from error
