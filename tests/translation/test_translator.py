import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import nn

from lightning_gancompress import Translator, UserError, load_generator
from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.data import read_source
from lightning_gancompress.data.pictures import to_picture
from lightning_gancompress.data.reading import open_image
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.trust import Named, trusting


def picture(width, height, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


class Odd(nn.Module):
    """Of images of 24 pixels alone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, image):
        return self.conv(image.view(-1, 3, 24, 24)).tanh()


class Wide(nn.Module):
    """Of five channels in and out."""

    def __init__(self, inputs=3, outputs=5):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, image):
        return self.conv(image).tanh()


def own(network, tmp_path, **arguments):
    path = tmp_path / "own.pth"
    spec = NetworkSpec(f"{__name__}.{network.__name__}", arguments)
    save_small(network(**arguments), spec, path, preprocessing={}, provenance={})
    return path


def test_a_translator_loads_no_lightning(unet):
    code = f"import sys, lightning_gancompress as g; g.Translator({str(unet)!r}); "
    code += "sys.exit(bool({'lightning', 'torchmetrics', 'jsonargparse'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_size_of_the_model_is_the_picture_that_a_prediction_writes(unet, tmp_path):
    picture(50, 40).save(tmp_path / "a.png")
    record = {"preprocess": "resize_and_crop", "load_size": 36, "crop_size": 32}
    with torch.no_grad():
        expected = to_picture(load_generator(unet)(read_source(tmp_path / "a.png", record)[None])[0])
    result = Translator(unet).translate(str(tmp_path / "a.png"), size="model")
    assert np.array_equal(np.asarray(result), np.asarray(expected))


def test_a_restored_picture_is_resized_back(unet):
    translator, source = Translator(unet), picture(50, 40)
    small = translator.translate(source, size="model")
    expected = small.resize((50, 40), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(translator.translate(source)), np.asarray(expected))


@pytest.mark.parametrize(("width", "height"), [(64, 32), (50, 40), (7, 70)])
def test_a_kept_size_is_padded_to_what_the_network_needs(unet, width, height):
    source = picture(width, height)
    right, bottom = -width % 32, -height % 32
    padded = np.pad(np.asarray(source), ((0, bottom), (0, right), (0, 0)), "reflect")
    with torch.no_grad():
        image = torch.from_numpy(padded).permute(2, 0, 1)[None].float().div(255).sub(0.5).div(0.5)
        expected = to_picture(load_generator(unet)(image)[0, :, :height, :width])
    result = Translator(unet).translate(source, size="kept")
    assert result.size == (width, height)
    assert np.array_equal(np.asarray(result), np.asarray(expected))


@pytest.mark.parametrize(
    ("preprocess", "restored", "model"),
    [
        ("resize_and_crop", (32, 32), (32, 32)),
        ("scale_width", (32, 64), (32, 56)),
        ("scale_width_and_crop", (32, 64), (32, 32)),
        ("crop", (64, 96), (32, 32)),
        ("none", (64, 96), (52, 92)),
    ],
)
def test_the_scale_of_training_is_that_of_its_preprocessing(saved, preprocess, restored, model):
    record = {"preprocess": preprocess, "load_size": 36, "crop_size": 32, "in_channels": 3}
    translator = Translator(saved(record=record, kind="ResnetGenerator"))
    translator.model.multiple, seen = 32, []  # paddings that can be told from the size
    run = translator.model.run
    translator.model.run = lambda images: seen.append(tuple(images.shape[:1:-1])) or run(images)
    results = [translator.translate(picture(52, 92), size=size) for size in ("restored", "model")]
    assert seen == [restored, model]
    assert [result.size for result in results] == [(52, 92), model]


def test_all_kinds_of_pictures_are_read_alike(unet, tmp_path):
    translator, source = Translator(unet), picture(40, 32)
    source.save(tmp_path / "a.png")
    expected = np.asarray(translator.translate(source))
    alike = [str(tmp_path / "a.png"), tmp_path / "a.png", np.asarray(source), source.convert("RGBA")]
    for result in translator.translate(alike):
        assert np.array_equal(np.asarray(result), expected)
    (found,) = translator.translate(tmp_path)  # a folder, in which the model is no picture
    assert np.array_equal(np.asarray(found), expected)


def test_a_photo_of_a_phone_is_turned_and_a_grey_one_has_three_channels(unet, tmp_path):
    translator, source, exif = Translator(unet), picture(48, 32), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    source.save(tmp_path / "a.png", exif=exif)
    turned = translator.translate(source.transpose(Image.Transpose.ROTATE_270))
    for given in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        assert np.array_equal(np.asarray(translator.translate(given)), np.asarray(turned))
    grey = source.convert("L")
    for given in (grey, np.asarray(grey), np.asarray(grey)[..., None]):
        assert np.array_equal(
            np.asarray(translator.translate(given)), np.asarray(translator.translate(grey.convert("RGB")))
        )


def test_sizes_may_be_a_height_and_a_width(saved):
    translator = Translator(saved(record={"crop_size": [32, 64]}))
    assert translator.model.model_size == (32, 64)
    assert translator.translate(picture(50, 40), size="model").size == (64, 32)
    assert translator.translate(picture(50, 40)).size == (50, 40)


def test_greyscale_networks_read_and_give_greyscale(saved):
    path = saved(record={"crop_size": 32, "in_channels": 1}, in_channels=1, out_channels=1)
    assert Translator(path).translate(picture(40, 32)).mode == "L"


def test_label_maps_are_encoded_as_in_the_training(saved):
    labels = {"encoding": "one_hot", "classes": 4}
    path = saved(record={"crop_size": 32, "in_channels": 4, "labels": labels}, in_channels=4)
    numbers = np.random.default_rng(0).integers(0, 4, (32, 32))
    image = torch.from_numpy(np.eye(4, dtype=np.float32)[:, numbers])[None]
    with torch.no_grad():
        expected = np.asarray(to_picture(load_generator(path)(image)[0]))
    translator = Translator(path)
    for given in (numbers, numbers.astype(np.uint8), Image.fromarray(numbers.astype(np.uint8))):
        assert np.array_equal(np.asarray(translator.translate(given)), expected)
    with pytest.raises(UserError, match="pixels of value 9"):
        translator.translate(np.full((32, 32), 9, np.uint8))


def test_batches_hold_pictures_of_one_size_in_their_order(saved):
    translator = Translator(saved(), batch_size=2)
    sources = [picture(64, 32, seed=n) for n in range(3)] + [picture(32, 32), picture(64, 32)]
    shapes, run = [], translator.model.run
    translator.model.run = lambda images: shapes.append(len(images)) or run(images)
    results = translator.translate(sources, size="kept")
    assert shapes == [2, 1, 1, 1]
    for source, result in zip(sources, results, strict=True):
        alone = np.asarray(translator.translate(source, size="kept"), int)
        assert np.abs(np.asarray(result, int) - alone).max() <= 1


def test_a_folder_goes_on_after_a_broken_picture(unet, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        picture(32, 32).save(folder / name)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:200])
    done = list(Translator(unet).translate_folder(folder))
    assert [(one.source.name, one.picture is None) for one in done] == [
        ("a.png", False),
        ("b.png", True),
        ("c.png", False),
    ]
    assert "b.png can't be decoded" in done[1].left_out
    with pytest.raises(UserError, match=r"b\.png can't be decoded"):
        Translator(unet).translate(folder)


def test_a_network_of_ones_own_is_tried_at_several_sizes(tmp_path):
    with trusting(Named(everything=True)):
        translator = Translator(own(Wide, tmp_path, outputs=3))
        assert translator.model.multiple == 1
        assert translator.translate(picture(51, 31), size="kept").size == (51, 31)


def test_without_a_record_pictures_have_256_pixels_or_what_the_network_needs(saved):
    assert Translator(saved(record={})).model.model_size == (256, 256)
    assert Translator(saved(record={}, n_downs=9)).model.model_size == (512, 512)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nothing.png", r"There is no image .*nothing\.png"),
        (np.zeros((8, 8, 3)), r"An array \(8, 8, 3\) of float64 is no picture"),
        (np.zeros((8, 8, 7), np.uint8), r"An array \(8, 8, 7\) of uint8 is no picture"),
        (np.zeros((0, 8, 3), np.uint8), "is no picture"),
        (torch.zeros(3, 8, 8), "A Tensor can't be translated"),
        (None, "is None: give a text or a path"),
        (Image.fromarray(np.full((8, 8), 999, np.int32)), "more than 8 bits"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(unet, given, words):
    with pytest.raises(UserError, match=words) as error:
        Translator(unet).translate(given)
    assert "\n" not in str(error.value)


def test_an_opened_file_that_is_truncated_is_no_picture(unet, tmp_path):
    picture(64, 64).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()[:300]
    with pytest.raises(UserError, match=r"Image an upload can't be decoded \(image file is truncated"):
        Translator(unet).translate(open_image(io.BytesIO(content), "an upload"))
    with pytest.raises(
        UserError, match=r"Image an upload can't be decoded \(it is in no format that is read"
    ):
        open_image(io.BytesIO(b"GIF, or so"), "an upload")


def test_an_empty_folder_is_named(unet, tmp_path):
    (tmp_path / "empty").mkdir()
    for translate in (Translator(unet).translate, Translator(unet).translate_folder):
        with pytest.raises(UserError, match=r"No pictures to translate: .*empty holds nothing"):
            translate(tmp_path / "empty")


def test_what_pictures_do_not_have_is_refused(tmp_path, saved):
    with trusting(Named(everything=True)):
        with pytest.raises(UserError, match="reads images of 7 channels, and pictures have 1 or 3"):
            Translator(own(Wide, tmp_path, inputs=7))
        with pytest.raises(UserError, match="gives images of 5 channels, and pictures have 1 or 3"):
            Translator(own(Wide, tmp_path)).translate(picture(8, 8))
    with pytest.raises(
        UserError, match=r"is 20x20, which the preprocessing crop to 32 .*: set size to restored"
    ):
        Translator(saved(record={"preprocess": "crop", "crop_size": 32})).translate(
            picture(20, 20), size="model"
        )


def test_a_network_of_one_size_restores_and_does_not_keep(tmp_path):
    with trusting(Named(everything=True)):
        path = own(Odd, tmp_path)
        record = '"preprocessing": {"crop_size": 24, "in_channels": 3}'
        text = path.with_suffix(".json").read_text().replace('"preprocessing": {}', record)
        path.with_suffix(".json").write_text(text)
        translator = Translator(path)
    assert translator.translate(picture(40, 32)).size == (40, 32)
    with pytest.raises(UserError, match=r"takes images of 24x24 pixels alone, and .* has 32x40: set size to"):
        translator.translate(picture(40, 32), size="kept")
    assert translator.translate(picture(24, 24), size="kept").size == (24, 24)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"labels": {"colour": 1}}, "damaged description"),
        ({"labels": {"encoding": "one_hot", "classes": 7}}, "label maps of its preprocessing give 7"),
        ({"labels": [1]}, "damaged description"),
        ({"preprocess": "squash"}, "preprocess"),
        ({"load_size": 8, "crop_size": 32}, "larger than data.load_size"),
    ],
)
def test_a_damaged_record_is_refused(saved, record, words):
    with pytest.raises(UserError, match=words) as error:
        Translator(saved(record=record))
    assert "\n" not in str(error.value)


def test_devices_and_other_options_are_checked(unet):
    with pytest.raises(UserError, match="device is 'gpu9', which torch can't use here"):
        Translator(unet, device="gpu9")
    with pytest.raises(UserError, match="batch_size"):
        Translator(unet, batch_size=0)
    with pytest.raises(UserError, match="restored or model or kept"):
        Translator(unet).translate(picture(8, 8), size="big")
