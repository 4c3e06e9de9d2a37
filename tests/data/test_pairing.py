"""Which picture belongs to which: a picture here has a colour that says which pair it is of."""

import unicodedata
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from lightning_gancompress.cli import main
from lightning_gancompress.data import PairedDataModule, UnpairedDataModule
from lightning_gancompress.data.holdout import part_of
from lightning_gancompress.errors import UserError

NAMES = ["1", "2", "10", "11", "100"]


def paired(root, **options):
    return PairedDataModule(str(root), **{"load_size": 8, "crop_size": 8, "num_workers": 0, **options})


def write(file, number, side):
    """A picture of a pair: its red says which pair, its blue which side."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number, 0, 255 * (side == "B"))).save(file, quality=100)


def folders(root, a, b, names=NAMES):
    """Files of A and B, whose names are patterns with `{}`."""
    for number, name in enumerate(names):
        write(root / a.format(name), 50 * number, "A")
        write(root / b.format(name), 50 * number, "B")
    return root


def numbers(data, split="train"):
    """The pairs that a data module sees, each once, after a check that both pictures are of the same."""
    found = []
    for a, b in data.files(split)["generator"]:
        (one, _, side_a), (other, _, side_b) = (
            np.asarray(Image.open(p).convert("RGB"))[0, 0] for p in (a, b)
        )
        assert abs(int(one) - int(other)) < 25
        assert (side_a < 128, side_b > 128) == (True, True)
        found.append(round(int(one) / 50))
    return sorted(found)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (PairedDataModule, ("source_folder", "target_folder")),
        (PairedDataModule, ("source_suffix", "target_suffix")),
        (UnpairedDataModule, ("source_folder", "target_folder")),
    ],
)
def test_sources_are_told_from_targets_by_what_caches_go_by(tmp_path, kind, names):
    """Else features of the one are taken for those of the other, and a search goes on with both swapped."""
    if names[0].endswith("suffix"):
        sides = "_x", "_y"
        folders(tmp_path, "train/{}_x.png", "train/{}_y.png")
    else:
        sides = "x", "y"
        folders(tmp_path, "train/x/{}.png", "train/y/{}.png")
    options = {"load_size": 8, "crop_size": 8, "num_workers": 0}
    one, again, other = (
        kind(str(tmp_path), **dict(zip(names, given, strict=True)), **options)
        for given in (sides, sides, sides[::-1])
    )
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    assert one.images() == again.images() != other.images()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("train/images/{}.jpg", "train/labels/{}.png"),
        ("images/train/{}.jpg", "labels/train/{}.png"),
        ("train_images/{}.png", "train_masks/{}.png"),
        ("Train/../train/Images/{}.JPG", "train/Labels/{}.png"),
        ("train/input/{}.png", "train/target/{}.bmp"),
        ("train/{}.jpg", "train/{}_L.png"),
        ("train/{}.jpg", "train/{}.png"),
        ("trainA/{}_real.png", "trainB/{}_label.png"),
        ("trainA/{}.png", "trainB/{}-seg.png"),
        ("trainA/Town/{}.png", "trainB/town/{}.png"),
        ("trainA/IMG_{}.JPG", "trainB/img_{}.png"),
    ],
)
def test_layouts_that_names_tell(tmp_path, a, b):
    (tmp_path / "Train").mkdir()
    assert numbers(paired(folders(tmp_path, a, b))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("a", "b", "options"),
    [
        ("train/x/{}.png", "train/y/{}.png", {"source_folder": "x", "target_folder": "y"}),
        ("x/train/{}.png", "y/train/{}.png", {"source_folder": "x", "target_folder": "y"}),
        ("train/{}.png", "trainannot/{}.png", {"source_folder": "{split}", "target_folder": "{split}annot"}),
        ("train/{}_fake.png", "train/{}_real.png", {"source_suffix": "_fake", "target_suffix": "_real"}),
        ("train/{}.png", "train/{}_0.png", {"target_suffix": "_0"}),
        ("train/{}.bmp", "train/{}.png", {"source_suffix": ".bmp", "target_suffix": ".png"}),
        ("train/{}.png", "train/gt/{}.png", {"source_folder": ".", "target_folder": "gt"}),
        (
            "leftImg8bit/train/ulm/{}_leftImg8bit.png",
            "gtFine/train/ulm/{}_gtFine_color.png",
            {"source_folder": "leftImg8bit", "target_folder": "gtFine"},
        ),
    ],
)
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_layouts_that_options_tell(tmp_path, a, b, options, direction):
    data = paired(folders(tmp_path, a, b), **options, direction=direction)
    if direction == "BtoA":  # A and B are swapped, but not what is read and made
        (sample,) = [data.datasets("train")["generator"][i] for i in range(1)]
        assert float(sample["source"][2].mean()) < 0 < float(sample["target"][2].mean())
        assert len(data.files("train")["generator"]) == 5
    else:
        assert numbers(data) == [0, 1, 2, 3, 4]


def test_files_of_no_side_are_left_alone(tmp_path):
    root = folders(tmp_path, "gtFine/train/{}_gtFine_labelIds.png", "leftImg8bit/train/{}_leftImg8bit.png")
    folders(root, "gtFine/train/{}_gtFine_instanceIds.png", "gtFine/train/{}_gtFine_color.png")
    options = {"source_folder": "gtFine", "target_folder": "leftImg8bit"}
    with pytest.raises(
        UserError, match=r"have no partner of the same name, such as .* set data\.source_suffix"
    ):
        paired(root, **options).files("train")


def test_files_of_one_suffix_among_several(tmp_path):
    root = folders(tmp_path, "gtFine/train/{}_gtFine_labelIds.png", "leftImg8bit/train/{}_leftImg8bit.png")
    folders(root, "gtFine/train/{}_gtFine_instanceIds.png", "gtFine/train/{}_gtFine_color.png")
    options = {"source_suffix": "_gtFine_labelIds", "target_suffix": "_leftImg8bit"}
    data = paired(root, source_folder="gtFine", target_folder="leftImg8bit", **options)
    assert numbers(data) == [0, 1, 2, 3, 4]


def test_the_same_names_in_subfolders(tmp_path):
    for number, place in enumerate(["", "a/", "b/", "a/b/"]):
        folders(
            tmp_path, f"trainA/{place}{{}}.png", f"trainB/{place}{{}}.png", names=[str(number), "same"][:1]
        )
        write(tmp_path / f"trainA/{place}same.png", 50 * number, "A")
        write(tmp_path / f"trainB/{place}same.jpg", 50 * number, "B")
    data = paired(tmp_path)
    for a, b in data.files("train")["generator"]:
        assert a.relative_to(tmp_path / "trainA").with_suffix("") == b.relative_to(
            tmp_path / "trainB"
        ).with_suffix("")
    assert len(numbers(PairedDataModule(str(tmp_path)))) == 8


def test_what_has_no_partner_is_told_and_nothing_is_paired_by_order(tmp_path):
    folders(tmp_path, "trainA/{}.png", "trainB/{}.png")
    (tmp_path / "trainA/10.png").rename(tmp_path / "trainA/010.png")
    with pytest.raises(
        UserError, match=r"2 images of .*trainA and .*trainB have.* as trainA.010\.png, trainB.10"
    ):
        paired(tmp_path).files("train")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("trainA/202{}-01-05.png", "trainB/202{}-02-07.png"),
        ("trainA/f{}_s1.png", "trainB/f{}_s2.png"),
        ("trainA/cam{}_0.png", "trainB/cam{}_1.png"),
        ("trainA/{}.png", "trainB/{}_0.png"),
    ],
)
def test_numbers_at_the_end_of_names_are_no_suffix(tmp_path, a, b):
    """They may count, or be dates: the images are others."""
    data = paired(folders(tmp_path, a, b))
    with pytest.raises(UserError, match=r"10 images of .* have no partner of the same name"):
        data.files("train")
    suffixes = [name.rpartition("}")[2].removesuffix(".png") for name in (a, b)]
    if all(suffixes):  # the remedy
        options = dict(zip(("source_suffix", "target_suffix"), suffixes, strict=True))
        assert numbers(paired(tmp_path, **options)) == [0, 1, 2, 3, 4]


def test_an_ending_does_not_take_the_files_of_a_suffix(tmp_path):
    folders(tmp_path, "train/{}.png", "train/{}_L.png")
    data = paired(tmp_path, source_suffix=".png", target_suffix="_L")
    assert numbers(data) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("name", "twin"), [("1.png", "1.jpg"), ("x/1.png", "x/1.webp")])
def test_two_files_of_one_name_on_a_side(tmp_path, name, twin):
    for side in "AB":
        write(tmp_path / f"train{side}" / name, 0, side)
    write(tmp_path / "trainB" / twin, 50, "B")
    with pytest.raises(
        UserError, match=r"differ in their ending only: .* data\.target_suffix to \.(png|jpg|webp)"
    ):
        paired(tmp_path).files("train")
    assert numbers(paired(tmp_path, target_suffix=".png")) == [0]


def test_names_that_differ_in_case_alone_stay_apart(tmp_path):
    folders(tmp_path, "trainA/{}.png", "trainB/{}.png", names=["a", "A", "b"])
    assert numbers(paired(tmp_path)) == [0, 1, 2]
    (tmp_path / "trainB/A.png").unlink()
    with pytest.raises(UserError, match=r"1 images of .* as trainA.A\.png"):
        paired(tmp_path).files("train")


def test_both_forms_of_unicode(tmp_path):
    name = "Stra\u00dfe \u00fcber"
    write(tmp_path / "trainA" / f"{unicodedata.normalize('NFD', name)}.png", 0, "A")
    write(tmp_path / "trainB" / f"{unicodedata.normalize('NFC', name)}.png", 0, "B")
    assert numbers(paired(tmp_path)) == [0]


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("train/{}_fake.png", "train/{}_real.png", "end in _fake and _real, which doesn't tell"),
        ("train/{}.bmp", "train/{}.png", r"end in \.bmp and \.png, which doesn't tell"),
        ("train/{}.png", "train/{}_0.png", "may hold single pictures|have no"),  # numbers may just count
    ],
)
def test_names_that_leave_it_open(tmp_path, a, b, words):
    with pytest.raises(UserError, match=words):
        paired(folders(tmp_path, a, b)).files("train")


def test_two_possible_folders_of_b(tmp_path):
    folders(tmp_path, "train/images/{}.png", "train/labels/{}.png")
    folders(tmp_path, "train/images/{}.png", "train/masks/{}.png")
    with pytest.raises(
        UserError, match=r"more than one layout.* set data\.source_folder and data\.target_folder"
    ):
        paired(tmp_path).files("train")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source_folder": "x"}, r"source_folder is x, but data\.target_folder is not given"),
        ({"target_suffix": "_L", "layout": "side_by_side"}, "layout is side_by_side, which has"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        paired(tmp_path, **options)


# -- without splits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("images/{}.jpg", "labels/{}.png"),
        ("A/{}.png", "B/{}.png"),
        ("{}.jpg", "{}_L.png"),
        ("{}.jpg", "{}.png"),
    ],
)
def test_pairs_without_splits_are_divided_by_name(tmp_path, a, b):
    data = paired(folders(tmp_path, a, b, names=[str(n) for n in range(5)]), holdout=0.2)
    parts = {split: numbers(data, split) for split in ("train", "val", "test")}
    assert sorted(chain(*parts.values())) == [0, 1, 2, 3, 4]
    assert [len(parts[split]) for split in ("train", "val", "test")] == [3, 1, 1]
    assert numbers(paired(tmp_path, holdout=0), "val") == [0, 1, 2, 3, 4]
    assert not data.validates_on_test
    assert data.fingerprint("train") != data.fingerprint("val")


def test_splits_of_other_names_are_not_mixed(tmp_path):
    folders(tmp_path, "images/training/{}.png", "labels/training/{}.png")
    with pytest.raises(UserError, match=r"images holds training, which may be splits and would be mixed"):
        paired(tmp_path).files("train")


def test_a_share_leaves_something_to_train_on():
    names = [f"{n}" for n in range(20)]
    parts = [part_of(names, 0.1, part) for part in ("train", "val", "test")]
    assert sorted(chain(*parts)) == list(range(20))
    assert list(map(len, parts)) == [16, 2, 2]
    assert part_of(names[::-1], 0.1, "val") == sorted(19 - position for position in parts[1])
    for few, share in ((names[:2], 0.1), (names, 0.5)):
        with pytest.raises(UserError, match=r"leaves none to train on"):
            part_of(few, share, "train")


def test_domains_of_other_names(tmp_path):
    folders(tmp_path, "horses/{}.png", "zebras/z{}.png")
    data = UnpairedDataModule(str(tmp_path), source_folder="horses", target_folder="zebras", holdout=0.2)
    found = {split: list(map(len, data.files(split).values())) for split in ("train", "val", "test")}
    assert found == {"train": [3, 3], "val": [1, 1], "test": [1, 1]}
    (tmp_path / "train").mkdir()
    for name in ("horses", "zebras"):
        (tmp_path / name).rename(tmp_path / "train" / name)
    data = UnpairedDataModule(
        str(tmp_path), source_folder="horses", target_folder="zebras", val_split="train"
    )
    assert list(map(len, data.files("val").values())) == [5, 5]


def test_the_command_line_names_folders(tmp_path, capsys):
    folders(tmp_path / "data", "train/x/{}.png", "train/y/{}.png")
    options = [
        "--data.source_folder=x",
        "--data.target_folder=z",
        "--data.val_split=train",
        "--data.batch_size=2",
    ]
    model = [
        "--model=TeacherModule",
        "--model.generator=UnetGenerator",
        "--model.discriminator=PatchDiscriminator",
    ]
    with pytest.raises(SystemExit):
        main(["fit", *model, "--data=PairedDataModule", f"--data.root={tmp_path / 'data'}", *options])
    assert "5 images of" in capsys.readouterr().err
