"""How far a picture in tiles is from the whole: `python tests/benchmark_tiles.py MODEL PICTURE`."""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_gancompress import Translator
from lightning_gancompress.translation.tiles import Tiles


def jump(pixels: NDArray[np.int64], columns: list[int]) -> float:
    """Mean difference of neighbouring pixels across columns, in grey levels."""
    return float(np.mean([np.abs(pixels[:, c] - pixels[:, c - 1]).mean() for c in columns]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("picture")
    parser.add_argument("--tiles", type=int, nargs="+", default=[256])
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 16, 32, 64, 128])
    parser.add_argument("--batch_norm", choices=["running", "image"])
    parser.add_argument("--save", help="folder for the pictures")
    args = parser.parse_args()
    translator = Translator(args.model, batch_norm=args.batch_norm)
    with Image.open(args.picture) as opened:
        picture = opened.convert("RGB")
    result = translator.translate(picture, size="kept")
    whole = np.asarray(result).astype(int)
    print(f"{args.model}, {picture.width}x{picture.height}, in grey levels")
    print("tile overlap step | difference: mean 99% max | jump at tiles' edges: whole, tiled")
    for tile in args.tiles:
        for overlap in args.overlaps:
            tiles = Tiles.of(translator.model, tile, overlap)
            picked = translator.translate(picture, tile=tile, overlap=overlap)
            tiled = np.asarray(picked).astype(int)
            difference = np.abs(tiled - whole)
            starts = tiles.starts(tiles.padded((picture.height, picture.width))[1], tile)
            edges = [c for start in starts for c in (start, start + tile) if 0 < c < picture.width]
            mean, high, most = difference.mean(), np.percentile(difference, 99), difference.max()
            print(
                f"{tile:4} {overlap:7} {tiles.step:4} | {mean:6.2f} {high:5.0f} {most:4.0f} | "
                f"{jump(whole, edges):.2f}, {jump(tiled, edges):.2f}",
                flush=True,
            )
            if args.save:
                picked.save(f"{args.save}/tile_{tile}_{overlap}.png")
    if args.save:
        result.save(f"{args.save}/whole.png")


if __name__ == "__main__":
    main()
