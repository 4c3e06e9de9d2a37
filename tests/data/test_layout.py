"""Which layout a folder has, and what is refused because it may have another."""

import os

import numpy as np
import pytest
from noise_files import noise, write_aligned
from PIL import Image

from lightning_gancompress.data import PairedDataModule, UnpairedDataModule, layout
from lightning_gancompress.data.facades import render_facade
from lightning_gancompress.data.halves import judge_halves
from lightning_gancompress.data.listing import list_images
from lightning_gancompress.data.synthetic import side_by_side
from lightning_gancompress.errors import UserError


def paired(root, **options):
    return PairedDataModule(str(root), **{"load_size": 8, "crop_size": 8, "num_workers": 0, **options})


def files(data, split="train"):
    return data.files(split)["generator"]


def photos(folder, count=16, size=(96, 64), first=0):
    """Photos without a border in their middle."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        render_facade(64, 0, first + i)[0].resize(size).save(folder / f"{i:02}.png")


def labels(folder, count=16, size=(96, 64)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        render_facade(64, 0, i)[1].resize(size, 0).save(folder / f"{i:02}.png")


def pairs(folder, count=16, size=64):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        side_by_side(*render_facade(size, 0, i)).save(folder / f"{i:02}.png")


def test_contours_of_small_pictures_are_their_own(tmp_path):
    """Not those of their enlarged pixels, which are alike in both halves."""
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    assert judge_halves(list_images(tmp_path)) == "single"


@pytest.mark.parametrize("size", [(96, 64), (128, 64), (64, 64)])
def test_single_photos_are_not_cut_in_half(tmp_path, size):
    photos(tmp_path / "train", size=size)
    with pytest.raises(
        UserError, match=rf"train may hold single pictures.*{size[0]}x{size[1]} show no border"
    ):
        paired(tmp_path).setup("fit")


def test_photos_beside_their_labels(tmp_path):
    """As CamVid has them."""
    for split in ("train", "val"):
        photos(tmp_path / split)
        labels(tmp_path / f"{split}annot")
    with pytest.raises(
        UserError, match=r"trainannot holds files of the same names.*source_folder to '{split}' and data\.tar"
    ):
        paired(tmp_path).setup("fit")
    remedy = {"source_folder": "{split}annot", "target_folder": "{split}"}
    data = paired(tmp_path, **remedy)
    assert files(data, "val")[3] == (tmp_path / "valannot/03.png", tmp_path / "val/03.png")


def test_photos_and_labels_within_a_split(tmp_path):
    photos(tmp_path / "train" / "fronts")
    labels(tmp_path / "train" / "codes")
    with pytest.raises(
        UserError, match=r"Set data\.source_folder to 'codes' and data\.target_folder to 'fron"
    ):
        paired(tmp_path).setup("fit")
    data = paired(tmp_path, source_folder="codes", target_folder="fronts")
    assert files(data)[0] == (tmp_path / "train/codes/00.png", tmp_path / "train/fronts/00.png")


def test_the_user_has_the_last_word(tmp_path):
    photos(tmp_path / "train", count=4)
    data = paired(tmp_path, layout="side_by_side", val_split="train")
    data.setup("fit")
    assert data.datasets("train")["generator"][0]["source"].shape == (3, 8, 8)


def test_pairs_are_known_as_such(tmp_path):
    pairs(tmp_path / "train", count=3)
    labels(tmp_path / "labels_of_something")
    pairs(tmp_path / "val", count=1)
    paired(tmp_path).setup("fit")
    assert judge_halves(list_images(tmp_path / "train")) == "pairs"


def test_pairs_of_any_aspect(tmp_path):
    pairs(tmp_path / "train", count=8)
    for file in list_images(tmp_path / "train"):
        Image.open(file).crop((0, 0, 128, 48)).save(file)
    assert len(files(paired(tmp_path))) == 8


def test_pictures_too_small_to_tell(tmp_path):
    write_aligned(tmp_path / "train", 3)
    assert len(files(paired(tmp_path))) == 3
    write_aligned(tmp_path / "annotations", 3)
    with pytest.raises(
        UserError, match=r"16x8 are too small to tell, and annotations holds files of the same"
    ):
        files(paired(tmp_path))
    write_aligned(tmp_path / "train", 3, (12, 8))
    for file in (tmp_path / "annotations").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"12x8 are too small to tell\. Move its images of A to trainA"):
        files(paired(tmp_path))


def test_splits_are_no_labels_of_each_other(tmp_path):
    for split in ("train", "val", "test"):  # all have 00.png
        write_aligned(tmp_path / split, 2)
    assert len(files(paired(tmp_path))) == 2


def test_two_layouts_at_once(tmp_path):
    write_aligned(tmp_path / "train", 2)
    for name in ("trainA", "trainB"):
        write_aligned(tmp_path / name, 3, (8, 8))
    with pytest.raises(
        UserError, match=r"train \(A \| B side by side\) and trainA \+ trainB: set data\.layout"
    ):
        files(paired(tmp_path))
    assert len(files(paired(tmp_path, layout="folders"))) == 3
    assert len(files(paired(tmp_path, layout="side_by_side"))) == 2


@pytest.mark.parametrize("kind", [PairedDataModule, UnpairedDataModule])
def test_two_layouts_of_folders(tmp_path, kind):
    for name in ("trainA", "trainB", "A/train", "B/train"):
        write_aligned(tmp_path / name, 3, (8, 8))
    with pytest.raises(UserError, match=r"trainA \+ trainB and A.train \+ B.train: rename or remove one"):
        kind(str(tmp_path)).files("train")
    (tmp_path / "trainA").rename(tmp_path / "elsewhere")
    assert len(kind(str(tmp_path)).files("train")) in (1, 2)


# -- listing -------------------------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_not_read(tmp_path):
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", ".DS_Store", "b/.x/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        noise(8, 8, 0).save(tmp_path / name, "PNG")
    assert list_images(tmp_path) == [tmp_path / "a.png"]
    hidden = tmp_path / "b" / ".x"
    assert list_images(hidden) == [hidden / "c.png"]  # named by the user


def test_folders_are_visited_once(tmp_path):
    for name in ("z/1.png", "z/y/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        noise(8, 8, 0).save(tmp_path / name)
    (tmp_path / "z" / "loop").symlink_to(tmp_path)
    (tmp_path / "z" / "y" / "loop").symlink_to(tmp_path / "z")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert list_images(tmp_path) == [tmp_path / "z" / "1.png", tmp_path / "z" / "y" / "2.png"]


def test_links_to_other_places_are_followed(tmp_path):
    write_aligned(tmp_path / "elsewhere" / "deep", 2)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "here").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "one.png").symlink_to(tmp_path / "elsewhere" / "deep" / "00.png")
    names = ["here/deep/00.png", "here/deep/01.png", "one.png"]
    assert list_images(tmp_path / "train") == [tmp_path / "train" / name for name in names]


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    write_aligned(tmp_path / "train" / "closed", 2)
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        UserError, match=r"closed can't be listed \(Permission denied\): mend its permissions"
    ):
        list_images(tmp_path / "train")


def test_folders_of_the_same_names_are_listed_once_each(tmp_path, monkeypatch):
    for number, folder in enumerate("abcde"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        (tmp_path / "train" / folder / ("last.png" if folder in "de" else f"{number}.png")).touch()
    listed, find = [], layout.list_images
    monkeypatch.setattr(layout, "list_images", lambda folder: listed.append(folder.name) or find(folder))
    found = layout.namesake(tmp_path, "train", ["train"])
    assert [folder.name for folder in found] == ["d", "e"]
    assert sorted(listed) == list("abcde")
