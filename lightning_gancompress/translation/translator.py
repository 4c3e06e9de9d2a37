"""From picture to picture, in one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lightning_gancompress.data.halves import doubt_of_pairs
from lightning_gancompress.data.listing import describe_folder, list_images
from lightning_gancompress.data.options import IMAGE_MODES
from lightning_gancompress.data.pictures import to_picture
from lightning_gancompress.data.reading import ENDINGS
from lightning_gancompress.data.transforms import Array
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.networks import BatchNorm
from lightning_gancompress.options import Count, CountOrNone, Pixels, Workers, checked
from lightning_gancompress.translation.opening import open_model
from lightning_gancompress.translation.sizes import Plan, ResultSize, options_of, plan
from lightning_gancompress.translation.sources import Picture, Sources
from lightning_gancompress.translation.tiles import Tiles, translate_tiles


@dataclass(frozen=True)
class Translated:
    """A translated picture.

    Attributes:
        source: What was translated: a path where it came from a folder.
        picture: The result; None if the source was left out.
        left_out: Why, in a sentence; empty if it wasn't.
    """

    source: Picture
    picture: Image.Image | None
    left_out: str = ""


@dataclass(frozen=True)
class _Prepared:
    source: Picture
    pixels: Array
    plan: Plan


@dataclass(frozen=True)
class _Way:
    """How pictures are translated."""

    size: ResultSize
    tiles: Tiles | None = None


class Translator:
    """Translates pictures by a model file, with the preprocessing that the model was trained with.

    Loads no Lightning and runs no code from the file.

    Args:
        model: An ONNX file of `export`, or any file that `load_generator` reads.
        device: `auto` is a CUDA GPU if there is one, else the CPU; or a name such as `cpu`, `cuda`, `mps`.
        threads: CPU threads; 0 for the default of torch or ONNX Runtime.
        batch_size: Most pictures that the model works on at once, if they have one size.
        network: Which generator, in a file of several; see `load_generator`. This and the following aren't
            for ONNX files.
        batch_norm: Statistics of batch norms; see `load_generator`.
        architecture: A network of the same class and arguments, where the file lacks them.

    Attributes:
        model: The opened file, which maps image batches (B, C, H, W) in [-1, 1].

    Raises:
        UserError: The file is missing, damaged, holds something else, or reads no pictures.
    """

    @checked
    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        threads: Workers = 0,
        batch_size: Count = 1,
        network: str = "generator",
        batch_norm: BatchNorm | None = None,
        architecture: nn.Module | None = None,
    ) -> None:
        self.model = open_model(model, device, threads, network, batch_norm, architecture)
        self.batch_size = batch_size
        self._sources = Sources(self.model)
        options_of(self.model)  # which refuses a record of damaged options

    @overload
    def translate(  # type: ignore[overload-overlap]  # a text is a sequence of texts
        self,
        pictures: Picture,
        *,
        size: ResultSize | None = ...,
        tile: Pixels | None = ...,
        overlap: CountOrNone = ...,
    ) -> Image.Image: ...

    @overload
    def translate(
        self,
        pictures: Sequence[Picture],
        *,
        size: ResultSize | None = ...,
        tile: Pixels | None = ...,
        overlap: CountOrNone = ...,
    ) -> list[Image.Image]: ...

    @checked
    def translate(
        self,
        pictures: Picture | Sequence[Picture],
        *,
        size: ResultSize | None = None,
        tile: Pixels | None = None,
        overlap: CountOrNone = 64,
    ) -> Image.Image | list[Image.Image]:
        """Translate a picture, or several.

        Args:
            pictures: A file; a PIL image; an array of 8 bits, (H, W) or (H, W, C); a list of these; or a
                folder, whose pictures are translated in the order of their names.
            size: `restored` has the model work at the scale of its training, and resizes the result to the
                size of the picture; `model` gives the result as it is, of the size of the training; `kept`
                has the model work on the picture at its own size, at the edges padded as the network needs,
                which shows all details that it has, but objects in another scale than in training. Files
                with one size alone can't, but in tiles. None is `restored`, with tiles `kept`.
            tile: Side in pixels of the tiles that larger pictures are cut into, so that memory suffices; None
                leaves them whole.
            overlap: Pixels by which two tiles overlap, where one fades into the other.

        Returns:
            RGB or greyscale pictures; a list for a list or a folder.

        Raises:
            UserError: A picture can't be read, or isn't for this model.
        """
        several = list(pictures) if isinstance(pictures, list | tuple) else None
        if isinstance(pictures, str | Path) and user_path(pictures).is_dir():
            several = list(pictures_in(pictures))
        given: list[Picture] = [pictures] if several is None else several  # type: ignore[list-item]
        done = self._all(given, self._way(size, tile, overlap), lenient=False)
        results = [one.picture for one in done if one.picture]
        return results[0] if several is None else results

    @checked
    def translate_folder(
        self,
        folder: str | Path,
        *,
        size: ResultSize | None = None,
        tile: Pixels | None = None,
        overlap: CountOrNone = 64,
    ) -> Iterator[Translated]:
        """Translate all pictures below a folder, in the order of their names, while it is iterated.

        Args:
            folder: The folder, or one file.
            size: See `translate`.
            tile: See `translate`.
            overlap: See `translate`.

        Yields:
            What came of each; pictures that can't be read, or aren't for this model, are left out.

        Raises:
            UserError: The folder has no pictures.
        """
        return self.translate_files(pictures_in(folder), size=size, tile=tile, overlap=overlap)

    @checked
    def translate_files(
        self,
        files: Sequence[str | Path],
        *,
        size: ResultSize | None = None,
        tile: Pixels | None = None,
        overlap: CountOrNone = 64,
    ) -> Iterator[Translated]:
        """As `translate_folder`, of files."""
        return self._all(files, self._way(size, tile, overlap), lenient=True)

    def _way(self, size: ResultSize | None, tile: int | None, overlap: int) -> _Way:
        if tile is None:
            return _Way(size or "restored")
        if size not in (None, "kept"):
            raise UserError(
                f"size is {size}, and tiles are for pictures at their own size: leave tile out, or set "
                "size to kept."
            )
        return _Way("kept", Tiles.of(self.model, tile, overlap))

    def _all(self, pictures: Iterable[Picture], way: _Way, lenient: bool) -> Iterator[Translated]:
        waiting: list[_Prepared] = []
        for picture in pictures:
            try:
                prepared = self._prepare(picture, way)
            except UserError as error:
                if not lenient:
                    raise
                yield from self._run(waiting, lenient)
                waiting = []
                yield Translated(picture, None, str(error))
                continue
            if waiting and waiting[0].pixels.shape != prepared.pixels.shape:
                yield from self._run(waiting, lenient)
                waiting = []
            waiting.append(prepared)
            if len(waiting) == self.batch_size:
                yield from self._run(waiting, lenient)
                waiting = []
        yield from self._run(waiting, lenient)

    def _prepare(self, picture: Picture, way: _Way) -> _Prepared:
        source = self._sources.open(picture)
        planned = plan(self.model, source.image.size, way.size, source.name, way.tiles)
        return _Prepared(picture, self._sources.pixels(source, planned), planned)

    def _run(self, batch: list[_Prepared], lenient: bool) -> Iterator[Translated]:
        if not batch:
            return
        try:
            if (tiles := batch[0].plan.tiles) is not None:
                results = [self._in_tiles(one, tiles) for one in batch]
            else:
                images = self.model(torch.stack([self._sources.encode(one.pixels) for one in batch]))
                results = [self._picture(image, one.plan) for image, one in zip(images, batch, strict=True)]
        except UserError as error:
            if not lenient:
                raise
            yield from (Translated(one.source, None, str(error)) for one in batch)
        else:
            yield from (Translated(one.source, r) for one, r in zip(batch, results, strict=True))

    def _in_tiles(self, prepared: _Prepared, tiles: Tiles) -> Image.Image:
        encode, (width, height) = self._sources.encode, prepared.plan.transform.size
        levels = translate_tiles(self.model, prepared.pixels, encode, tiles, self.batch_size)
        self._require_picture(len(levels))
        pixels = np.ascontiguousarray(levels[:, :height, :width].transpose(1, 2, 0))
        return Image.fromarray(pixels[..., 0] if len(levels) == 1 else pixels)

    def _require_picture(self, channels: int) -> None:
        if channels not in IMAGE_MODES:
            raise UserError(
                f"{self.model.path} gives images of {channels} channels, and pictures have 1 or 3: call "
                "load_generator or open_model for its tensors."
            )

    def _picture(self, image: Tensor, planned: Plan) -> Image.Image:
        self._require_picture(len(image))
        if planned.result is None:
            return to_picture(image)
        if image.shape[:0:-1] == planned.work:
            width, height = planned.transform.size
            image = image[:, :height, :width]
        picture = to_picture(image)
        if picture.size == planned.result:
            return picture
        return picture.resize(planned.result, Image.Resampling.BICUBIC)


def pictures_in(folder: str | Path) -> list[Path]:
    """The pictures below a folder, sorted; of a file itself. Warns if they look like pairs A | B.

    Raises:
        UserError: There are none.
    """
    path = user_path(folder)
    if not path.exists():
        raise UserError(f"There is no picture or folder {path}: check the path.")
    if found := [path] if path.is_file() else list_images(path):
        if (doubt := doubt_of_pairs(found)) is not None:
            warnings.warn(doubt, stacklevel=2)
        return found
    raise UserError(f"No pictures to translate: {describe_folder(path)}; expected files with {ENDINGS}.")
