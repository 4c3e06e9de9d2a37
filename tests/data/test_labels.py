"""Label maps: what networks read of them, from a file to the description of a small model."""

import json

import numpy as np
import pytest
import tiny
import torch
from noise_files import noise
from PIL import Image

from lightning_gancompress import load_generator
from lightning_gancompress.callbacks.image_grid import to_picture
from lightning_gancompress.checkpoints.generators import recorded_preprocessing
from lightning_gancompress.cli import main
from lightning_gancompress.data import (
    FolderDataModule,
    Labels,
    PairedDataModule,
    UnpairedDataModule,
    read_source,
)
from lightning_gancompress.data.labels import as_picture, read_indices
from lightning_gancompress.errors import UserError
from lightning_gancompress.metrics import to_uint8

CLASSES = 5


def label_map(seed, size=24):
    """Classes 0..4 in blocks, and void in the first column."""
    values = np.random.default_rng(seed).integers(0, CLASSES, (size // 4, size // 4), dtype=np.uint8)
    values = values.repeat(4, 0).repeat(4, 1)
    values[:, 0] = 255
    return values


@pytest.fixture
def maps(tmp_path):
    """Photos `A` and index maps `B` of 24 pixels."""
    for split, count in (("train", 8), ("test", 2)):
        for name in "AB":
            (tmp_path / f"{split}{name}").mkdir()
        for i in range(count):
            noise(24, 24, i).save(tmp_path / f"{split}A" / f"{i}.png")
            Image.fromarray(label_map(i)).save(tmp_path / f"{split}B" / f"{i}.png")
    return tmp_path


def module(root, encoding="one_hot", **options):
    labels = Labels(encoding, None if encoding == "colors" else CLASSES)
    sizes = {"load_size": 20, "crop_size": 16, "num_workers": 0, "direction": "BtoA"}
    return PairedDataModule(str(root), **{"labels": labels, **sizes, **options})


def classes_of(one_hot):
    """Classes of a one-hot source (C, H, W), 255 where no channel is set."""
    return torch.where(one_hot.amax(0) > 0, one_hot.argmax(0), 255).numpy()


def test_one_hot_is_the_nearest_resize_of_the_classes(maps):
    for i, sample in enumerate([module(maps).datasets("test")["generator"][i] for i in range(2)]):
        nearest = Image.fromarray(label_map(i)).resize((16, 16), Image.Resampling.NEAREST)
        assert sample["source"].shape == (CLASSES, 16, 16)
        assert set(sample["source"].unique().tolist()) == {0.0, 1.0}
        assert np.array_equal(classes_of(sample["source"]), np.asarray(nearest))
        assert sample["target"].shape == (3, 16, 16)


def test_palette_is_a_fixed_colour_per_class_and_black_for_none(maps):
    colours = np.array([*Labels("palette", CLASSES).colours])
    assert len({*map(tuple, colours.tolist())} | {(0, 0, 0)}) == CLASSES + 1
    assert colours[:2].tolist() == [[128, 0, 0], [0, 128, 0]]
    many = Labels("palette", 300).colours
    assert len(set(many)) == 300
    sample = module(maps, "palette").datasets("test")["generator"][0]
    nearest = np.asarray(Image.fromarray(label_map(0)).resize((16, 16), Image.Resampling.NEAREST))
    expected = np.where(nearest[..., None] == 255, 0, colours[np.minimum(nearest, CLASSES - 1)])
    assert np.array_equal(to_uint8(sample["source"]).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "scale_width_and_crop", "scale_width", "none"])
def test_augmentation_moves_classes_with_the_photo_and_invents_none(maps, preprocess):
    for i in range(8):  # the photo of a map is the map, so both must stay equal
        Image.fromarray(label_map(i)).convert("RGB").save(maps / "trainA" / f"{i}.png")
    data = module(maps, preprocess=preprocess, target_labels=Labels("colors"))
    samples = data.datasets("train", augment=True)["generator"]
    views = [samples[code] for code in range(4 * len(samples))]
    for view in views:
        assert np.array_equal(classes_of(view["source"]), to_uint8(view["target"])[0].numpy())
    assert len({view["source"].numpy().tobytes() for view in views}) > len(samples)


def test_files_of_all_modes_hold_the_same_classes(tmp_path):
    values = label_map(3)
    paletted = Image.fromarray(values).convert("P")
    paletted.putdata(values.flatten().tolist())
    paletted.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    grey = Image.fromarray(values)
    forms = {
        "grey": grey,
        "paletted": paletted,
        "deep": Image.fromarray(values.astype(np.uint16)),
        "rgb": Image.merge("RGB", [grey] * 3),
        "alpha": Image.merge("LA", [grey, grey]),
    }
    for name, image in forms.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(np.asarray(read_indices(tmp_path / f"{name}.png")), values), name
    Image.fromarray(values > 2).save(tmp_path / "bits.png")
    assert set(np.unique(np.asarray(read_indices(tmp_path / "bits.png")))) == {0, 1}


def test_more_classes_than_a_byte_has_values(tmp_path):
    values = np.arange(400, dtype=np.uint16).reshape(20, 20)
    (tmp_path / "train").mkdir()
    Image.fromarray(values).save(tmp_path / "train" / "0.png")
    labels = Labels("one_hot", 400, void=None)
    data = FolderDataModule(str(tmp_path), crop_size=20, load_size=20, labels=labels, holdout=0)
    source = data.datasets("train")["generator"][0]["source"]
    assert torch.equal(source.argmax(0), torch.arange(400).reshape(20, 20))


def test_halves_of_one_file(tmp_path):
    (tmp_path / "train").mkdir()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 250, (16, 16), dtype=np.uint8))
    pair = Image.new("L", (32, 16))
    pair.paste(photo, (0, 0))
    pair.paste(Image.fromarray(label_map(0, 16)), (16, 0))
    pair.save(tmp_path / "train" / "0.png")
    sample = module(tmp_path, load_size=16, out_channels=1).datasets("train")["generator"][0]
    assert np.array_equal(classes_of(sample["source"]), label_map(0, 16))
    assert np.array_equal(to_uint8(sample["target"])[0].numpy(), np.asarray(photo))


def test_colours_are_kept_by_choice(tmp_path, maps):
    colours = {(0, 0, 170), (255, 85, 0), (85, 255, 170)}
    table = np.array(sorted(colours), np.uint8)
    for file in [*(maps / "trainB").iterdir(), *(maps / "testB").iterdir()]:
        Image.fromarray(table[np.asarray(Image.open(file)) % 3]).save(file)

    def found(data):
        pixels = to_uint8(data.datasets("test")["generator"][0]["source"])
        return {tuple(colour) for colour in pixels.flatten(1).T.tolist()}

    assert found(module(maps, "colors")) <= colours
    assert not found(module(maps, labels=None)) <= colours  # bicubic invents some
    with pytest.raises(UserError, match=r"B/0\.png holds colours \(mode RGB\).*set encoding to colors"):
        found(module(maps))


def test_a_value_that_is_no_class_is_told_before_the_run(maps):
    values = label_map(0)
    values[3, 3] = 7
    Image.fromarray(values).save(maps / "trainB" / "5.png")
    data = module(maps)
    words = (
        r"trainB/5\.png has pixels of value 7, but data\.labels\.classes is 5: raise it to 8, or .*void to 7"
    )
    with pytest.raises(UserError, match=words):
        data.setup("fit")
    with pytest.raises(UserError, match=r"data\.labels\.classes"):
        data.datasets("train")["generator"][5]
    module(maps, labels=Labels("one_hot", 8)).setup("fit")
    with pytest.raises(UserError, match="value 255"):
        module(maps, labels=Labels("one_hot", 8, void=None)).setup("fit")


def test_a_jpeg_holds_no_classes(maps):
    (maps / "trainB" / "5.png").unlink()
    Image.fromarray(label_map(5)).save(maps / "trainB" / "5.jpg")
    with pytest.raises(UserError, match=r"5\.jpg is a JPEG, whose compression changes classes"):
        module(maps).setup("fit")


def test_index_maps_read_as_pictures_are_noticed_once(maps, recwarn):
    data = module(maps, labels=None)
    for stage in ("fit", "fit", "test"):
        data.setup(stage)
    words = [str(w.message) for w in recwarn if "nearly black" in str(w.message)]
    assert len(words) == 1
    assert "data.labels to {encoding: palette, classes: 5}" in words[0]
    module(maps, labels=None, direction="AtoB").setup("fit")
    assert "data.target_labels to {encoding: palette" in str(recwarn[-1].message)
    UnpairedDataModule(str(maps), crop_size=16).setup("fit")
    assert "data.target_labels to {encoding: palette" in str(recwarn[-1].message)
    predicted = FolderDataModule(str(maps / "trainA"), predict_folder=str(maps / "testB"))
    predicted.setup("predict")
    assert "data.labels to" in str(recwarn[-1].message)


@pytest.mark.parametrize("values", [[0, 255], [0, 200], [0], [255]])
def test_masks_and_dark_photos_are_no_index_maps(maps, values, recwarn):
    for file in [*(maps / "trainB").iterdir(), *(maps / "testB").iterdir()]:
        Image.fromarray(np.random.default_rng(0).choice(values, (24, 24)).astype(np.uint8)).save(file)
    module(maps, labels=None).setup("fit")
    assert not [w for w in recwarn if "nearly black" in str(w.message)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("one_hot",), "needs the number of classes"),
        (("palette", 1), "classes of Labels is 1"),
        (("palette", 10**9), "from 2 to 1,024"),
        (("one_hot", 3, -1), "void of Labels is -1"),
        (("colors", 3), "leave it out"),
        (("rgb", 3), "palette or one_hot or colors"),
    ],
)
def test_labels_that_make_no_sense(options, words):
    with pytest.raises(UserError, match=words):
        Labels(*options)


def test_a_generator_makes_no_channel_per_class(maps):
    one_hot = Labels("one_hot", CLASSES)
    with pytest.raises(UserError, match=r"data\.target_labels\.encoding is one_hot.*set it to palette"):
        module(maps, target_labels=one_hot)
    with pytest.raises(UserError, match=r"data\.labels\.encoding is one_hot"):
        UnpairedDataModule(str(maps), labels=one_hot)
    with pytest.raises(
        UserError, match=r"data\.in_channels is 1, .* gives 5 channels: leave in_channels out"
    ):
        module(maps, in_channels=1)


def test_photos_to_labels(maps):
    data = module(maps, labels=None, target_labels=Labels("palette", CLASSES), direction="AtoB")
    sample = data.datasets("test")["generator"][0]
    colours = {(0, 0, 0), *Labels("palette", CLASSES).colours}
    assert {tuple(c) for c in to_uint8(sample["target"]).flatten(1).T.tolist()} <= colours
    assert data.preprocessing["resample"] == "bicubic"
    assert data.preprocessing["target_labels"]["classes"] == CLASSES


def test_each_direction_of_a_cyclegan_has_its_own_labels(maps):
    from lightning_gancompress.tasks import CycleGAN, Role

    data = UnpairedDataModule(str(maps), target_labels=Labels("palette", CLASSES), crop_size=16, load_size=16)
    record = data.preprocessing
    there = CycleGAN().preprocessing(Role("generator_AtoB"), record)
    back = CycleGAN().preprocessing(Role("generator_BtoA"), record)
    assert (there["resample"], "labels" in there) == ("bicubic", False)
    assert (back["resample"], back["labels"]["classes"]) == ("nearest", CLASSES)
    source = data.datasets("test")[Role("generator_BtoA")][0]["B"]
    assert torch.equal(read_source(maps / "testB" / "0.png", back), source)


def options_of(maps, encoding):
    channels = CLASSES if encoding == "one_hot" else 3
    labels = [f"--data.labels.encoding={encoding}", f"--data.labels.classes={CLASSES}"]
    sizes = ["load_size=34", "crop_size=32", "batch_size=4", "search_batch_size=8", "num_workers=0"]
    data = ["--data=PairedDataModule", f"--data.root={maps}", "--data.direction=BtoA"]
    networks = [
        f"--model.generator.in_channels={channels}",
        f"--model.discriminator.in_channels={channels + 3}",
    ]
    return [*data, *labels, *(f"--data.{size}" for size in sizes)], networks


@pytest.mark.parametrize("encoding", ["one_hot", "palette"])
def test_from_training_to_the_small_model(maps, encoding):
    """Teacher, search, fine-tuning, test with mIoU, prediction and export of index maps."""
    data, networks = options_of(maps, encoding)
    main([*tiny.teacher(maps / "teacher"), *networks, *data])
    main([*tiny.compression(maps / "small", tiny.last(maps / "teacher")), *data])
    small, last = maps / "small" / "generator.pth", tiny.last(maps / "small")
    source = module(maps, encoding, load_size=34, crop_size=32).datasets("test")["generator"][0]["source"]
    for file in (small, last):
        record = recorded_preprocessing(file)
        assert record["labels"] == {"encoding": encoding, "classes": CLASSES, "void": 255}
        assert torch.equal(read_source(maps / "testB" / "0.png", record), source)

    callbacks = ["--trainer.callbacks=Evaluation", "--trainer.callbacks.latency=false"]
    callbacks += ["--trainer.callbacks+=SegmentationScore", "--trainer.callbacks.epochs=1"]
    folder = f"--trainer.default_root_dir={maps / 'small'}"
    main(["test", f"--ckpt_path={last}", folder, *callbacks, "--trainer.callbacks+=ImageGrid"])
    results = json.loads((maps / "small" / "test" / "results.json").read_text())
    assert results["miou"]["classes"] == CLASSES
    grid = np.asarray(Image.open(maps / "small" / "test" / "grid.png"))
    shown = {tuple(c) for c in np.unique(grid.reshape(-1, 3), axis=0).tolist()}
    assert set(Labels("palette", CLASSES).colours) <= shown

    main(["predict", f"--ckpt_path={last}", folder, f"--data.predict_folder={maps / 'testB'}"])
    with torch.no_grad():
        expected = load_generator(small)(source[None])[0]
    written = Image.open(maps / "small" / "predictions" / "0.png")
    assert np.array_equal(np.asarray(written), np.asarray(to_picture(expected)))


def test_exported_files_record_the_preprocessing(maps):
    import onnx

    data, networks = options_of(maps, "one_hot")
    main([*tiny.teacher(maps / "teacher"), *networks, *data, "--trainer.fast_dev_run=false"])
    last = tiny.last(maps / "teacher")
    main(["export", f"--ckpt_path={last}"])
    main(["export", f"--ckpt_path={last}", "--format=torch"])
    entries = {entry.key: entry.value for entry in onnx.load(last.with_suffix(".onnx")).metadata_props}
    assert json.loads(entries["preprocessing"]) == recorded_preprocessing(last)
    extra = {"preprocessing": ""}
    torch.export.load(last.with_suffix(".pt2"), extra_files=extra)
    assert json.loads(extra["preprocessing"]) == recorded_preprocessing(last)


def test_a_network_of_other_channels_names_the_options(maps, capsys):
    data, _ = options_of(maps, "one_hot")
    code, words = tiny.fail_code(capsys, [*tiny.teacher(maps / "teacher"), *data])
    assert code == 2
    assert "set its in_channels to 5" in words
    assert "data.labels" in words


def test_pictures_are_looked_at_as_they_are():
    image = torch.rand(2, 3, 4, 4)
    assert as_picture(image, {"in_channels": 3}) is image
    assert as_picture(image, {"labels": {"encoding": "palette", "classes": 3}}) is image
