"""Two folders become files A | B side by side."""

import numpy as np
import pytest
from noise_files import noise
from PIL import Image

from lightning_gancompress.cli import main
from lightning_gancompress.data import Labels, PairedDataModule


@pytest.fixture
def sides(tmp_path):
    """Three pictures and label maps, with other endings, in folders within A and B."""
    for split, names in (("train", ["1", "10"]), ("test", ["2"])):
        for side in "AB":
            (tmp_path / side / split).mkdir(parents=True)
        for number, name in enumerate(names):
            noise(12, 8, number).save(tmp_path / "A" / split / f"{name}.jpg")
            labels = np.random.default_rng(number).integers(0, 9, (8, 12), np.uint8)
            Image.fromarray(labels).save(tmp_path / "B" / split / f"{name}_L.png")
    return tmp_path


def pair(folder, output="out", *options):
    main(["data", "pair", str(folder / "A"), str(folder / "B"), str(folder / output), *options])


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        pair(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_pixels_are_kept_and_read_as_pairs(sides, capsys):
    pair(sides)
    assert "Wrote 3 pairs" in capsys.readouterr().out
    for name in ("train/1", "train/10", "test/2"):
        joined = np.asarray(Image.open(sides / f"out/{name}.png"))
        assert np.array_equal(joined[:, :12], np.asarray(Image.open(sides / f"A/{name}.jpg")))
        assert np.array_equal(joined[:, 12:, 0], np.asarray(Image.open(sides / f"B/{name}_L.png")))
    labels = Labels("palette", classes=9)
    data = PairedDataModule(
        str(sides / "out"), layout="side_by_side", target_labels=labels, load_size=8, crop_size=8
    )
    dataset = data.datasets("train")["generator"]
    assert len(dataset) == 2
    assert dataset[0]["target"].shape == (3, 8, 8)


def test_what_is_there_stays(sides, capsys):
    pair(sides)
    (sides / "out/train/1.png").unlink()
    before = (sides / "out/train/10.png").stat().st_mtime_ns
    capsys.readouterr()
    pair(sides)
    assert "Wrote 1 pairs" in (text := capsys.readouterr().out)
    assert "2 were there already" in text
    assert (sides / "out/train/10.png").stat().st_mtime_ns == before
    noise(8, 8, 0).save(sides / "out/train/10.png")
    assert "is no pair of 12x8 pixels each" in refused(capsys, sides)


def test_what_cannot_be_paired_writes_nothing(sides, capsys):
    assert "lies in" in refused(capsys, sides, "A/joined")
    noise(10, 8, 0).save(sides / "B/test/2_L.png")
    assert "(12x8) and" in refused(capsys, sides)
    (sides / "B/test/2_L.png").unlink()
    assert "1 images of" in refused(capsys, sides)
    (sides / "B").rename(sides / "C")
    assert "B is no folder" in refused(capsys, sides)
    assert not (sides / "out").exists()


def test_pairs_of_one_folder(tmp_path):
    for name in ("a_real", "a_fake", "b_real", "b_fake"):
        (tmp_path / "A").mkdir(exist_ok=True)
        noise(8, 8, len(name)).save(tmp_path / "A" / f"{name}.png")
    folder = str(tmp_path / "A")
    main(["data", "pair", folder, folder, str(tmp_path / "out"), "--a_suffix=_fake", "--b_suffix=_real"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
