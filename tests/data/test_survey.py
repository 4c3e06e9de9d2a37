"""What a run says of its images before it reads them."""

import warnings

import numpy as np
import pytest
from lightning.pytorch import Trainer
from noise_files import noise, write_aligned
from PIL import Image
from test_layout import labels, pairs, photos

from lightning_gancompress.data import FolderDataModule, PairedDataModule, UnpairedDataModule, image_folder
from lightning_gancompress.errors import UserError


@pytest.fixture
def said(monkeypatch):
    """What is said at the start of a stage."""
    lines = []
    monkeypatch.setattr(image_folder, "rank_zero_info", lines.append)

    def run(data, stage="fit"):
        lines.clear()
        data.setup(stage)
        return list(lines)

    return run


def small(kind, root, **options):
    return kind(str(root), **{"load_size": 16, "crop_size": 8, "num_workers": 0, **options})


def test_pairs_side_by_side(root, said):
    assert said(small(PairedDataModule, root)) == [
        "Data: 11 pairs, train (A | B side by side), 8x8 to 8x8, RGB; "
        "val: 5 pairs, val (A | B side by side), 8x8 to 8x8, RGB."
    ]
    line = "Data: 5 pairs, val (A | B side by side), 8x8 to 8x8, greyscale / RGB."
    assert said(small(PairedDataModule, root, in_channels=1), "test") == [line]


def test_pairs_in_folders(tmp_path, said):
    for split in ("train", "val"):
        photos(tmp_path / split / "A")
        labels(tmp_path / split / "B")
    noise(40, 30, 0).save(tmp_path / "val" / "A" / "00.png")
    found = said(small(PairedDataModule, tmp_path))
    assert found == [
        "Data: 16 pairs, train/A + train/B, 96x64 to 8x8, RGB; "
        "val: 16 pairs, val/A + val/B, 96x64 and 1 other sizes to 8x8, RGB."
    ]


def test_domains(domains, said):
    found = said(small(UnpairedDataModule, domains, preprocess="scale_width"), "test")
    assert found == ["Data: 3 + 4 images, testA + testB, 8x8 to 8x8, RGB."]
    found = said(small(UnpairedDataModule, domains, preprocess="scale_width"), "fit")
    assert found[0].startswith("Data: 5 + 11 images, trainA + trainB, 8x8 to 16x16, RGB; val: 3 + 4 images")


def test_what_is_special(tmp_path, said):
    noise(8, 8, 0).save(tmp_path / "a.jpg")
    Image.new("RGBA", (8, 8)).save(tmp_path / "b.png")
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 99)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    for name in ("readme.txt", "b.txt", "labels", ".DS_Store", "x.mat"):
        (tmp_path / name).write_text("")
    (found,) = said(small(FolderDataModule, tmp_path, holdout=0.0), "validate")
    assert found == (
        f"Data: 3 images, {tmp_path}, 8x8 to 8x8, RGB, transparent pixels on white, "
        "the first frame of animations, not read as images: 1 without ending, 1 .mat, 2 .txt."
    )


def test_sources_to_predict(tmp_path, said):
    write_aligned(tmp_path / "in", 3, (8, 8))
    (tmp_path / "in" / "broken.png").write_text("")
    (tmp_path / "in" / "x.txt").write_text("")
    found = said(small(PairedDataModule, tmp_path, predict_folder=str(tmp_path / "in")), "predict")
    assert found == [f"Data: 4 images, {tmp_path / 'in'}, 8x8 to 8x8, RGB, not read as images: 1 .txt."]
    one = tmp_path / "in" / "01.png"
    found = said(small(PairedDataModule, tmp_path, predict_folder=str(one)), "predict")
    assert found == [f"Data: 1 image, {one}, 8x8 to 8x8, RGB."]


def test_pairs_that_are_read_whole(tmp_path, said):
    pairs(tmp_path / "train")
    pairs(tmp_path / "val")
    with pytest.warns(UserWarning, match=r"train look like pairs A \| B side by side, but are read whole"):
        said(small(FolderDataModule, tmp_path))
    with pytest.warns(UserWarning, match=r"val look like pairs"):
        said(small(PairedDataModule, tmp_path, predict_folder=str(tmp_path / "val")), "predict")


def test_sources_and_targets_that_are_read_alike(tmp_path, said):
    photos(tmp_path / "images", 3)
    labels(tmp_path / "masks", 3)
    with pytest.warns(UserWarning, match=r"images and .*masks hold images of the same names"):
        said(small(FolderDataModule, tmp_path, holdout=0.0))
    (tmp_path / "masks" / "01.png").rename(tmp_path / "masks" / "more.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said(small(FolderDataModule, tmp_path, holdout=0.0))


# -- only a train folder -------------------------------------------------------------------------------------


def test_only_a_train_folder(tmp_path):
    write_aligned(tmp_path / "train", 2)
    with pytest.raises(
        UserError, match=r"val_split to train to validate there, or trainer\.limit_val_batches to 0"
    ):
        small(PairedDataModule, tmp_path).setup("fit")
    with pytest.raises(UserError, match=r"No test images .* Set data\.test_split to the folder to test on"):
        small(PairedDataModule, tmp_path).setup("test")
    small(PairedDataModule, tmp_path, val_split="train").setup("fit")
    data = small(PairedDataModule, tmp_path)
    data.trainer = Trainer(limit_val_batches=0, logger=False, accelerator="cpu")
    data.setup("fit")
    with pytest.raises(UserError, match="No val images"):
        data.setup("validate")
