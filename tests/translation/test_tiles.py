import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gancompress import Translator, UserError
from lightning_gancompress.translation import tiles
from lightning_gancompress.translation.tiles import Tiles, _fade


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "step", "starts"),
    [
        (100, 100, 10, 1, [0]),
        (101, 100, 10, 1, [0, 1]),
        (190, 100, 10, 1, [0, 90]),
        (250, 100, 50, 1, [0, 50, 100, 150]),
        (160, 64, 20, 32, [0, 32, 64, 96]),
        (512, 64, 8, 4, [0, 56, 112, 168, 224, 280, 336, 392, 448]),
    ],
)
def test_tiles_cover_a_length_evenly_by_steps(length, tile, overlap, step, starts):
    assert Tiles((tile, tile), overlap, step).starts(length, tile) == starts


def test_padded_pictures_end_with_a_tile():
    assert Tiles((64, 32), 8, 16).padded((64, 33)) == (64, 48)
    assert Tiles((64, 32), 8, 16).padded((97, 5)) == (112, 32)


def test_a_tile_fades_where_it_meets_another():
    assert _fade(0, 6, [0, 4]).tolist() == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3])
    assert _fade(4, 6, [0, 4]).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    assert _fade(0, 3, [0, 3]).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("width", "height"), [(90, 70), (32, 100), (20, 100), (100, 9), (33, 33)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiles_of_a_network_without_neighbours_make_the_whole_picture(saved, width, height, batch_size):
    translator, source = Translator(saved(), batch_size=batch_size), picture(width, height)
    shapes = []

    def run(images):
        shapes.append(images.shape)
        return -images

    translator.model.run = run
    result = translator.translate(source, tile=32, overlap=8)
    assert np.array_equal(np.asarray(result), 255 - np.asarray(source))
    assert {tuple(shape[2:]) for shape in shapes} == {(32, 32)}
    assert max(shape[0] for shape in shapes) <= batch_size


def test_a_constant_per_tile_fades_into_the_next(saved):
    """The first tile is black, the second white: between them grey levels rise by equal steps."""
    translator, levels = Translator(saved("ResnetGenerator")), iter([-1.0, 1.0])
    assert translator.model.multiple == 4
    translator.model.run = lambda images: torch.full_like(images, next(levels))
    row = np.asarray(translator.translate(picture(48, 32), tile=32, overlap=8))[5, :, 0].astype(int)
    assert row[:16].max() == 0
    assert row[32:].min() == 255
    assert np.allclose(row[16:32], np.arange(1, 17) / 17 * 255, atol=0.51)


def test_tiles_begin_where_a_network_computes_the_same_pixels(saved, monkeypatch):
    """A ResNet without norms, halving twice, is far off where its tiles are shifted by a pixel or two."""
    translator, source = Translator(saved("ResnetGenerator", norm="none")), picture(150, 130)
    whole = np.asarray(translator.translate(source, size="kept"), int)

    def difference():
        tiled = np.asarray(translator.translate(source, tile=64, overlap=32), int)
        return np.abs(tiled - whole).mean()

    aligned = difference()
    monkeypatch.setattr(tiles, "STEP", 1)
    translator.model.multiple = 1
    assert aligned < difference() / 2


def test_files_of_one_size_keep_a_larger_picture_in_tiles(saved):
    translator, source = Translator(saved("ResnetGenerator")), picture(50, 70)
    translator.model.fixed_size, translator.model.multiple = (32, 32), None
    translator.model.run = lambda images: -images
    for given in (source, source.crop((0, 0, 20, 10))):
        result = translator.translate(given, tile=32, overlap=8)
        assert np.array_equal(np.asarray(result), 255 - np.asarray(given))
    with pytest.raises(UserError, match=r"takes images of 32x32 pixels alone: set tile to 32"):
        translator.translate(source, tile=64, overlap=8)


def test_tiles_that_cannot_be_are_refused(saved):
    translator = Translator(saved())
    with pytest.raises(UserError, match="overlap is 64, and tiles have 64 pixels: set it to 8"):
        translator.translate(picture(9, 9), tile=64, overlap=64)
    with pytest.raises(UserError, match=r"tile is 100, and .* takes multiples of 32: set tile to 128"):
        translator.translate(picture(9, 9), tile=100)
    with pytest.raises(UserError, match="size is model, and tiles are for pictures at their own size"):
        translator.translate(picture(9, 9), tile=64, size="model")
    translator.model.run = lambda images: images[..., ::2, ::2]
    with pytest.raises(UserError, match="images of another size than it reads: leave tile out"):
        translator.translate(picture(99, 99), tile=64, overlap=8)
