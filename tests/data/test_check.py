"""The look at a data set before a training."""

import shutil

import numpy as np
import pytest
from noise_files import noise
from PIL import Image

from lightning_gancompress.cli import main
from lightning_gancompress.data import FolderDataModule, PairedDataModule, UnpairedDataModule
from lightning_gancompress.data.facades import render_facade
from lightning_gancompress.data.kinds import kind_of
from lightning_gancompress.reporting.grid import cut

SMALL = ["--data.crop_size=32", "--data.load_size=36", "--data.num_workers=0"]


@pytest.fixture
def folder(tmp_path):
    """Six and four pairs of photos and labels, of 64 pixels, each pair of a building of its own."""
    number = 0
    for split, count in (("train", 6), ("test", 4)):
        for name in ("images", "labels"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
        for n in range(count):
            for name, picture in zip(("images", "labels"), render_facade(64, 0, number), strict=True):
                picture.save(tmp_path / "set" / split / name / f"{split}{n}.png")
            number += 1
    return tmp_path / "set"


def check(folder, capsys, *options):
    """Exit code, and what is said."""
    output = folder.parent / "check.png"
    output.unlink(missing_ok=True)
    try:
        main(["data", "check", str(folder), f"--output={output}", *SMALL, *options])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert output.exists() == (code == 0) == (f"{output} is not written" not in out)
    return code, out + err


def image(folder, name="train/images/train0.png"):
    return folder / name


def test_a_sound_folder(folder, capsys):
    code, text = check(folder, capsys)
    assert code == 0
    assert "train: 6 pairs, source and target such as train/images/train0.png and train/labels" in text
    assert "all 64x64" in text
    assert "test: as val" in text
    assert "note" not in text
    assert "class_path: PairedDataModule" in text
    assert "crop_size: 32" in text
    rows = cut(folder.parent / "check.png")
    assert [list(row) for row in rows] == [["source", "target"]] * 6
    assert {picture.size for row in rows for picture in row.values()} == {(32, 32)}
    # the source is the photo, which has many colours
    assert all(len(set(row["source"].getdata())) > 2 * len(set(row["target"].getdata())) for row in rows)


def broken(folder):
    image(folder).write_bytes(b"no picture")


def truncated(folder):
    noise(64, 64, 0).save(image(folder))
    image(folder).write_bytes(image(folder).read_bytes()[:5000])


def of_other_size(folder):
    noise(64, 60, 0).save(image(folder))


def alone(folder):
    image(folder).rename(image(folder, "train/images/other.png"))


def without_training(folder):
    shutil.rmtree(folder / "train")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (broken, "1 file of train that can't be read: Image"),
        (truncated, "1 sample of train that can't be used: Image"),
        (of_other_size, "1 pair of train of different sizes: "),
        (alone, "2 images of"),
        (without_training, "No train images"),
    ],
)
def test_what_stops_a_training(folder, capsys, spoil, words):
    spoil(folder)
    code, text = check(folder, capsys)
    assert code == 1
    assert f"stops a training: {words}" in text
    assert text.count("stops a training") == 1


def of_one_colour(folder):
    Image.new("RGB", (64, 64), "red").save(image(folder))


def equal(folder):
    shutil.copy(image(folder), image(folder, "train/labels/train0.png"))


def turned(folder):
    exif = Image.Exif()
    exif[274] = 6
    Image.open(image(folder)).save(image(folder), exif=exif)


def animated(folder):
    noise(64, 64, 0).save(image(folder), save_all=True, append_images=[noise(64, 64, 1)])


def transparent(folder):
    Image.open(image(folder)).convert("RGBA").save(image(folder))


def copied(folder):
    for name in ("images", "labels"):
        shutil.copy(folder / f"train/{name}/train0.png", folder / f"test/{name}/test9.png")


def twice(folder):
    for name in ("images", "labels"):
        shutil.copy(folder / f"train/{name}/train0.png", folder / f"train/{name}/train9.png")


def of_the_same_pixels(folder):
    for name in ("images", "labels"):
        Image.open(folder / f"train/{name}/train0.png").save(folder / f"test/{name}/test9.bmp")


def nearly_the_same(folder):
    for name in ("images", "labels"):
        Image.open(folder / f"train/{name}/train0.png").save(folder / f"test/{name}/test9.jpg", quality=80)


def of_indices(folder):
    for file in (folder / "train/labels").iterdir():
        Image.fromarray(np.random.default_rng(0).integers(0, 12, (64, 64), np.uint8)).save(file)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_one_colour, "1 image of train of a single colour: {folder}/train/images/train0.png"),
        (equal, "1 source of train equal to the target: {folder}/train/images/train0.png"),
        (turned, "1 file of train turned by an EXIF orientation: "),
        (animated, "1 file of train animated, of which the first frame is read: "),
        (transparent, "1 file of train with transparent pixels, which become white: "),
        (
            copied,
            "2 times: a file of val is a copy of one of train: {folder}/test/images/test9.png and {folder}",
        ),
        (
            twice,
            "1 pair of train with the bytes of another: {folder}/train/images/train9.png of {folder}",
        ),
        (
            of_the_same_pixels,
            "1 time: an image of val has the pixels of one of train: {folder}/test/images/t",
        ),
        (
            nearly_the_same,
            "1 time: an image of val looks nearly like one of train: {folder}/test/images/test9",
        ),
        (of_indices, "The images of target, such as"),
    ],
)
def test_what_looks_wrong_is_noted(folder, capsys, spoil, words):
    spoil(folder)
    code, text = check(folder, capsys)
    assert f"note: {words.format(folder=folder)}" in text
    assert (code, text.count("note: ")) == (0, 1)


def test_pixels_of_a_share_alone(folder, capsys):
    truncated(folder)
    shutil.move(image(folder), image(folder, "test/images/test1.png"))  # evenly spread ones are 0 and 3
    shutil.copy(image(folder, "train/images/train1.png"), image(folder))
    code, text = check(folder, capsys, "--limit=2")
    assert code == 0
    assert "Pixels: 2 of 6 of train, 2 of 4 of val (--limit=2)" in text
    assert check(folder, capsys, "--limit=0")[0] == 1


def test_sizes_that_cannot_share_a_batch(folder, capsys):
    for name in ("images", "labels"):
        noise(80, 64, 0).save(folder / f"train/{name}/train0.png")
    code, text = check(folder, capsys, "--data.preprocess=none", "--data.batch_size=2")
    assert code == 1
    assert "Images of train have 2 sizes (64x64, 80x64) after data.preprocess none" in text
    code, text = check(folder, capsys, "--data.preprocess=crop", "--data.crop_size=72", "--data.load_size=80")
    assert (code, "smaller than data.crop_size 72" in text) == (1, True)


def test_the_file_of_a_small_size_is_named(folder, capsys):
    """Not another one of the same height."""
    for name in ("images", "labels"):
        noise(200, 70, 0).save(folder / f"train/{name}/train0.png")
        noise(60, 70, 0).save(folder / f"train/{name}/train5.png")
    code, text = check(folder, capsys, "--data.preprocess=crop", "--data.crop_size=62", "--data.load_size=64")
    assert code == 1
    assert "train5.png is 60x70" in text


def test_copies_of_single_images_are_noted(folder, capsys):
    shutil.copy(image(folder), image(folder, "train/images/train9.png"))
    code, text = check(folder / "train/images", capsys, "--data.holdout=0")
    assert (code, "note: 1 image of train with the bytes of another: " in text) == (0, True)


def test_a_shared_mask_is_no_copy_of_a_sample(folder, capsys):
    for split in ("train", "test"):
        Image.new("RGB", (64, 64)).save(folder / split / "labels" / f"{split}0.png")
    shutil.copy(folder / "train/labels/train1.png", folder / "train/labels/train2.png")
    text = check(folder, capsys)[1]
    assert "copy of one of train" not in text
    assert "with the bytes of another" not in text


def test_options_that_tell_sources_from_targets_are_of_pairs(tmp_path, capsys):
    """As the set by hand, whose folders no other name tells."""
    for number in range(4):
        for name, picture in zip(("left", "fine"), render_facade(64, 0, number), strict=True):
            (tmp_path / "set" / name / "train" / "town").mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "set" / name / "train" / "town" / f"{number}_{name}.png")
    options = ["--data.source_folder=fine", "--data.target_folder=left", "--data.val_split=train"]
    suffixes = ["--data.source_suffix=_fine", "--data.target_suffix=_left", "--data.test_split=train"]
    code, text = check(tmp_path / "set", capsys, *options, *suffixes)
    assert code == 0
    assert "train: 4 pairs" in text


def test_the_folder_may_follow_the_flag_debug(folder, capsys):
    main(["data", "check", "--debug", str(folder), f"--output={folder.parent / 'check.png'}", *SMALL])
    assert "Fine." in capsys.readouterr().out


def test_label_maps_by_their_option(folder, capsys):
    of_indices(folder)
    labels = ["--data.target_labels.encoding=palette", "--data.val_split=train", "--data.test_split=train"]
    code, _ = check(folder, capsys, *labels, "--data.target_labels.classes=12")
    assert code == 0
    code, text = check(folder, capsys, *labels, "--data.target_labels.classes=8")
    assert code == 1
    assert "6 samples of train that can't be used: Label map" in text
    assert "data.target_labels.classes is 8: raise it to 12" in text


def test_a_configuration(folder, capsys, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"model: {{class_path: TeacherModule}}\ntrainer: {{max_epochs: 3}}\ndata:\n"
        f"  class_path: PairedDataModule\n  init_args: {{root: {folder}, direction: BtoA, load_size: 36, "
        "crop_size: 32, num_workers: 0}\n"
    )
    main(["data", "check", f"--config={config}", f"--output={tmp_path / 'x.png'}"])
    assert "source and target such as train/labels/train0.png and train/images" in capsys.readouterr().out
    config.write_text("model: {class_path: TeacherModule}\n")
    with pytest.raises(SystemExit):
        main(["data", "check", f"--config={config}"])
    assert "holds no section data" in capsys.readouterr().err


def test_domains_and_a_folder_of_pictures(folder, tmp_path, capsys):
    domains = tmp_path / "domains"
    for name, source in (("trainA", "train/images"), ("trainB", "test/images"), ("testA", "test/labels")):
        shutil.copytree(folder / source, domains / name)
    shutil.copytree(folder / "train/labels", domains / "testB")
    code, text = check(domains, capsys)
    assert code == 0
    assert "train: 6 + 4 images, such as trainA/train0.png and trainB/test0.png" in text
    code, text = check(folder / "train" / "images", capsys)  # photos alone, of which some are held out
    assert (code, "FolderDataModule" in text) == (0, True)


def test_the_kind_of_a_folder(folder, tmp_path):
    assert kind_of(folder) is PairedDataModule
    alone(folder)
    assert kind_of(folder) is PairedDataModule  # so that what is missing is told
    assert kind_of(folder / "test/images") is FolderDataModule
    shutil.copytree(folder / "train/images", tmp_path / "d/trainA")
    shutil.copytree(folder / "test/images", tmp_path / "d/trainB")
    assert kind_of(tmp_path / "d") is UnpairedDataModule
    shutil.copytree(folder / "train/labels", tmp_path / "e/train/x")
    shutil.copytree(folder / "train/images", tmp_path / "e/train/y")
    assert kind_of(tmp_path / "e") is PairedDataModule


def test_other_pictures_are_not_replaced(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", str(folder), f"--output={image(folder)}"])
    assert stop.value.code == 2
    assert "exists and was not written by this command" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["data", "check"], ["data", "check", "nowhere"], ["data"]])
def test_words_that_are_missing(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help_reads_well(capsys):
    for words, expected in (
        (["data", "--help"], "check"),
        (["data", "check", "--help"], "DIR is read by the data module that fits"),
        (["data", "pair", "--help"], "Folder of A, which becomes the left half"),
        (["data", "download", "--help"], "Name of the set"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        assert expected in " ".join(capsys.readouterr().out.split())
