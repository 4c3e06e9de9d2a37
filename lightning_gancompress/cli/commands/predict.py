"""The command `predict` by a model file alone."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.progress import track

from lightning_gancompress.data.reading import endings, read_header
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import require_writable, user_path, write_files
from lightning_gancompress.networks import BatchNorm
from lightning_gancompress.options import Count, CountOrNone, Pixels, Workers, checked
from lightning_gancompress.reporting.grid import png
from lightning_gancompress.translation import Translator
from lightning_gancompress.translation.names import PictureNames
from lightning_gancompress.translation.sizes import ResultSize
from lightning_gancompress.translation.translator import pictures_in

SECONDS = 10  # between two lines where there is no terminal
SOME_LEFT_OUT = 1  # exit code

Item = TypeVar("Item")


def by_model_file(words: Sequence[str]) -> bool:
    """Whether the words after `predict` ask for a translation by a model file alone."""
    text = "\n".join(words)
    return bool(re.search(r"^--(input(=|$)|model(=|\n)(hf://|.*\.(onnx|pth|safetensors|ckpt)$))", text, re.M))


@checked
def predict(
    model: str,
    input: str,
    output: str = "predictions",
    size: ResultSize | None = None,
    tile: Pixels | None = None,
    overlap: CountOrNone = 64,
    device: str = "auto",
    threads: Workers = 0,
    batch_size: Count = 1,
    network: str = "generator",
    batch_norm: BatchNorm | None = None,
) -> None:
    """Translate pictures by a model file alone, with the preprocessing of its training.

    Results are PNG files, named like their sources. Pictures that can't be read, or aren't for the model, are
    left out and named; then the exit code is 1, or 2 if all were left out.

    Args:
        model: ONNX file, small model, training checkpoint, or upstream `latest_net_G.pth`.
        input: A picture, or a folder of pictures.
        output: Folder for the results. Earlier ones there are replaced, sources never.
        size: `restored` works at the scale of the training and resizes the result to the size of the picture,
            `model` leaves it as the model gives it, `kept` works on the picture at its own size; the default
            is `restored`, with tiles `kept`.
        tile: Side in pixels of tiles that larger pictures are cut into, so that memory suffices.
        overlap: Pixels by which two tiles overlap, where one fades into the other.
        device: `auto` is a CUDA GPU if there is one, else the CPU.
        threads: CPU threads; 0 for the default of torch or ONNX Runtime.
        batch_size: Most pictures of one size that the model works on at once.
        network: Network of a training checkpoint; `teacher.generator` for the uncompressed one,
            `generator_AtoB` or `generator_BtoA` for CycleGAN.
        batch_norm: `image` for the statistics of each image, as upstream's test; None is as recorded.
    """
    sources, folder, names = user_path(input), user_path(output), PictureNames()
    place = folder.resolve()
    if place.suffix.lower() in endings():
        raise UserError(f"output {output} is the name of a picture: give the folder that holds the results.")
    if place == (sources if sources.is_dir() else sources.parent).resolve():
        raise UserError(f"output {output} is the folder of the pictures: choose another.")
    files = [file for file in pictures_in(sources) if not file.resolve().is_relative_to(place)]
    if not files:
        raise UserError(
            f"All pictures in {input} are earlier results in {output}: give another folder to input."
        )
    translator = Translator(
        model, device=device, threads=threads, batch_size=batch_size, network=network, batch_norm=batch_norm
    )
    translated = translator.translate_files(files, size=size, tile=tile, overlap=overlap)
    require_writable(folder, "output")
    replaced, animated, left_out, own = 0, 0, list[str](), {_identity(file) for file in files}
    for file, done in zip(files, _progress(translated, len(files)), strict=True):
        if done.picture is None:
            left_out.append(done.left_out)
            continue
        target = folder / names.name(file, sources)
        if target.exists() and _identity(target) in own:  # by a link
            raise UserError(
                f"{target}, for the result of {file}, is one of the pictures: choose another output."
            )
        replaced += target.exists()
        animated += read_header(file).animated
        write_files({target: png(done.picture)})
    if len(left_out) == len(files):
        raise UserError(f"No picture was translated: {left_out[0]}")
    for text in left_out:
        print(f"Left out: {text}", file=sys.stderr)
    rest = f", {replaced} in place of earlier ones" if replaced else ""
    rest += f", of {animated} the first frame alone, since animated" if animated else ""
    rest += f", {len(left_out)} left out" if left_out else ""
    print(f"Translated: {_pictures(len(files) - len(left_out))} in {folder}{rest}.")
    if left_out:
        raise SystemExit(SOME_LEFT_OUT)


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file by whatever name: its device and its number there."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _pictures(count: int) -> str:
    return f"{count} picture{'s' * (count != 1)}"


def _progress(items: Iterable[Item], total: int) -> Iterator[Item]:
    """Show how many of some pictures are done: a bar in a terminal, else lines."""
    if sys.stderr.isatty():
        from rich.console import Console

        yield from track(items, "Translating", total, console=Console(stderr=True), transient=True)
        return
    spoke = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - spoke >= SECONDS and number < total:
            print(f"Translating: {number} of {_pictures(total)}", flush=True)
            spoke = time.monotonic()
