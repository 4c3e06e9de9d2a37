import numpy as np
import pytest
import torch
from noise_files import noise
from PIL import Image

from lightning_gancompress.data import ImageError, Preprocessing
from lightning_gancompress.data.reading import read_image
from lightning_gancompress.data.transforms import PictureReader
from lightning_gancompress.errors import UserError

RGB, GREY = PictureReader(3, "labels"), PictureReader(1, "labels")


def random(seed=0):
    return np.random.default_rng(seed)


def test_evaluation_resizes_to_the_crop_size_and_normalises():
    image = noise(20, 10, 0)
    view = Preprocessing(load_size=12, crop_size=8).transform(image.size, "x")
    tensor = RGB.tensor(image, view, "x")
    pixels = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC), np.float32) / 255
    torch.testing.assert_close(tensor, torch.from_numpy((pixels - 0.5) / 0.5).permute(2, 0, 1))


def test_training_crops_the_resized_image():
    image = noise(20, 10, 0)
    whole = np.asarray(image.resize((12, 12), Image.Resampling.BICUBIC))
    preprocessing = Preprocessing(load_size=12, crop_size=8)
    boxes, flips = set(), set()
    for seed in range(30):
        view = preprocessing.transform(image.size, "x", random(seed))
        x, y, right, bottom = view.box
        expected = whole[y:bottom, x:right][:, :: -1 if view.flip else 1]
        assert np.array_equal(
            ((RGB.tensor(image, view, "x") + 1) * 127.5).round().permute(1, 2, 0).numpy(), expected
        )
        boxes.add(view.box)
        flips.add(view.flip)
    assert len(boxes) > 10
    assert flips == {True, False}
    assert all(x >= 0 and y >= 0 and right <= 12 and bottom <= 12 for x, y, right, bottom in boxes)


@pytest.mark.parametrize(
    ("preprocess", "size", "train", "evaluation"),
    [
        ("resize_and_crop", (30, 20), (8, 8), (8, 8)),
        ("crop", (30, 20), (8, 8), (8, 8)),
        ("scale_width", (24, 36), (12, 16), (8, 12)),  # 12x18: no multiple of 4
        ("scale_width_and_crop", (24, 36), (8, 8), (8, 8)),
        ("none", (30, 21), (32, 20), (32, 20)),
    ],
)
def test_sizes_of_each_preprocess(preprocess, size, train, evaluation):
    preprocessing = Preprocessing(preprocess, load_size=12, crop_size=8)
    image = noise(*size, seed=0)
    for expected, source in ((train, random()), (evaluation, None)):
        tensor = RGB.tensor(image, preprocessing.transform(size, "x", source), "x")
        assert (tensor.shape[2], tensor.shape[1]) == expected


def test_scale_width_and_crop_keeps_the_aspect():
    view = Preprocessing("scale_width_and_crop", load_size=12, crop_size=8).transform((24, 48), "x", random())
    assert view.size == (12, 24)


def test_greyscale_gives_one_channel():
    image = noise(8, 8, 0).convert("L")
    view = Preprocessing(crop_size=8).transform(image.size, "x")
    assert GREY.tensor(image, view, "x").shape == (1, 8, 8)


def test_crop_must_fit():
    with pytest.raises(UserError, match=r"data\.crop_size 256 is larger than data\.load_size 128"):
        Preprocessing(load_size=128, crop_size=256)
    with pytest.raises(ImageError, match=r"photo\.png is 30x20, smaller than data.crop_size 64"):
        Preprocessing("crop", crop_size=64).transform((30, 20), "photo.png")


def test_unreadable_images_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    noise(64, 64, 0).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    for name in ("text", "cut"):
        with pytest.raises(ImageError, match=rf"{name}\.png can't be decoded"):
            read_image(tmp_path / f"{name}.png")
    with pytest.raises(ImageError, match="more than 8 bits"):
        read_image(tmp_path / "deep.png")


def test_thin_images_do_not_fill_the_memory():
    message = r"line\.png is 1x100000, and data\.preprocess scale_width would make it 288x28600000: remove it"
    with pytest.raises(ImageError, match=message):
        Preprocessing("scale_width").transform((1, 100_000), "line.png", random())
