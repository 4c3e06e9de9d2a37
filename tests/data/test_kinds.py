"""Which data module fits a folder: what is wrong with pairs never makes their pictures mere sources."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lightning_gancompress.cli import main
from lightning_gancompress.data import FolderDataModule, PairedDataModule, UnpairedDataModule
from lightning_gancompress.data.facades import render_facade
from lightning_gancompress.data.kinds import kind_of
from lightning_gancompress.data.synthetic import side_by_side
from lightning_gancompress.errors import UserError

LAYOUTS = [
    ("images/{}_photo.jpg", "labels/{}_label.png"),
    ("train/images/{}.jpg", "train/labels/{}.png"),
    ("images/train/{}.jpg", "labels/train/{}_L.png"),
    ("train_images/{}.jpg", "train_masks/{}.png"),
    ("trainA/{}_photo.jpg", "trainB/{}_label.png"),
    ("train/A/{}.jpg", "train/B/{}.png"),
    ("A/{}.jpg", "B/{}.png"),
    ("train/{}.jpg", "train/{}_L.png"),
    ("{}.jpg", "{}_L.png"),
    ("train/{}.jpg", "train/{}.png"),
    ("train/{}_photo.jpg", "train/{}_label.png"),
]
# neither the names of these folders nor those of their splits tell which images are A
UNTOLD = [
    ("training/images/{}.jpg", "training/labels/{}.png"),
    ("fronts/{}_front.jpg", "codes/{}_code.png"),
    ("train/fronts/{}_front.jpg", "train/codes/{}_code.png"),
]


def picture(file, number=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)).save(file)


def write(root, a, b, count=12):
    for number in range(count):
        for pattern in (a, b):
            picture(root / pattern.format(100 + number), number)
    return root


def missing(a, b):
    b[3].unlink()


def doubled_source(a, b):
    shutil.copy(a[5], a[5].with_suffix(".jpeg"))


def doubled_target(a, b):
    shutil.copy(b[5], b[5].with_suffix(".bmp"))


def unequal(a, b):
    for file in b[5:]:
        file.unlink()


def of_other_names(a, b):
    for file in (a[2], b[7]):
        file.rename(file.with_stem(f"z{file.stem}"))


def few_sources(a, b):
    unequal(b, a)


@pytest.mark.parametrize(
    "spoil", [missing, doubled_source, doubled_target, unequal, few_sources, of_other_names]
)
@pytest.mark.parametrize(("a", "b"), LAYOUTS + UNTOLD)
def test_pairs_that_are_refused_stay_pairs(tmp_path, a, b, spoil):
    write(tmp_path, a, b)
    spoil(*([tmp_path / pattern.format(100 + n) for n in range(12)] for pattern in (a, b)))
    assert kind_of(tmp_path) is PairedDataModule
    with pytest.raises(UserError) as caught:
        PairedDataModule(str(tmp_path)).files("train")
    if a == "train/{}_photo.jpg":
        words = "names end in _label and _photo, which doesn't tell"
    elif (a, b) in UNTOLD:
        words = "holds files of the same names" if a.startswith("train/") else "No train"
    elif spoil in (doubled_source, doubled_target):
        words = "2 other images|1 other images" if b == "train/{}.png" else "differ in their ending only"
    else:
        words = "have no partner of the same name"
    caught.match(words)


def test_labels_beside_a_split_of_photos(tmp_path):
    write(tmp_path, "train/{}.jpg", "trainannot/{}_L.png")
    missing([], sorted((tmp_path / "trainannot").iterdir()))
    assert kind_of(tmp_path) is PairedDataModule


@pytest.mark.parametrize(("a", "b"), LAYOUTS)
def test_a_file_that_cannot_be_read_changes_nothing(tmp_path, a, b):
    write(tmp_path, a, b)
    (tmp_path / a.format(100)).write_bytes(b"broken")
    assert kind_of(tmp_path) is PairedDataModule


def test_a_broken_file_among_pairs_side_by_side_and_among_photos(tmp_path):
    for number in range(4):
        both = render_facade(64, 0, number)
        for name, image in (("pairs", side_by_side(*both)), ("photos", both[0])):
            (tmp_path / name / "train").mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / name / "train" / f"{number}.png")
    for name, kind in (("pairs", PairedDataModule), ("photos", FolderDataModule)):
        (tmp_path / name / "train" / "9.png").write_bytes(b"broken")
        assert kind_of(tmp_path / name) is kind


def test_one_side_alone(tmp_path):
    write(tmp_path, "images/{}.jpg", "labels/{}.png")
    for file in (tmp_path / "labels").iterdir():
        file.unlink()
    assert kind_of(tmp_path) is PairedDataModule  # an empty folder of labels
    (tmp_path / "labels").rmdir()
    assert kind_of(tmp_path) is FolderDataModule


def test_two_folders_of_sources(tmp_path):
    write(tmp_path, "images/{}.jpg", "labels/{}.png")
    write(tmp_path, "images/{}.jpg", "photos/{}.jpg")
    assert kind_of(tmp_path) is PairedDataModule


def test_domains_of_names_that_share_nothing_stay_domains(tmp_path):
    for name, first in (("trainA", 0), ("trainB", 50)):
        for number in range(5):
            picture(tmp_path / name / f"{first + number}.jpg", first + number)
    assert kind_of(tmp_path) is UnpairedDataModule
    for name in ("A", "B"):
        (tmp_path / f"train{name}").rename(tmp_path / f"test{name}")
    assert kind_of(tmp_path) is UnpairedDataModule  # which says that the training is missing


def test_photos_of_many_names_are_sources(tmp_path):
    for name in ("a", "a_2", "b", "b_2", "b_edited", "c", "town/d", "town/e", "town/f", "g", "h"):
        picture(tmp_path / "images" / f"{name}.jpg", len(name))
    assert kind_of(tmp_path) is FolderDataModule


def said(capsys, *words):
    try:
        main(["data", "check", *words, "--data.crop_size=8", "--data.load_size=8", "--data.num_workers=0"])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, "".join(capsys.readouterr())


def test_the_command_refuses_what_is_doubled(tmp_path, capsys):
    root, output = write(tmp_path / "two", *LAYOUTS[0]), tmp_path / "x.png"
    shutil.copy(root / "images/105_photo.jpg", root / "images/105_photo.jpeg")
    for options in ([], ["--data.direction=BtoA"]):
        code, text = said(capsys, str(root), f"--output={output}", *options)
        assert code == 1
        assert "105_photo.jpeg and" in text
        assert "differ in their ending only" in text
        assert f"{output} is not written" in text
        assert "Fine" not in text
        assert not output.exists()
    code, text = said(capsys, str(root), f"--output={output}", "--data.source_suffix=.jpg")  # as it says
    assert (code, "train: 1" in text) == (0, True)


def test_an_option_of_pairs_says_that_these_are_pairs(tmp_path, capsys):
    for number in range(4):
        picture(tmp_path / "train" / f"{number}.png", number)
    code, text = said(capsys, str(tmp_path), "--data.direction=BtoA", f"--output={tmp_path / 'x.png'}")
    assert code == 1
    assert "may hold single pictures" in text
