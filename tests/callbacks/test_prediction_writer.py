from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_module import TinyModule, make_trainer
from torch.utils.data import DataLoader

from lightning_gancompress import UserError
from lightning_gancompress.callbacks.prediction import PredictionWriter
from lightning_gancompress.data import SyntheticFacades
from lightning_gancompress.metrics import to_uint8


def sources(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return [str(folder / name) for name in names]


def write(root, paths, folder=None, channels=3, writer=None):
    """Let the callback write one batch; the images' values tell them apart."""
    images = torch.linspace(-1, 1, len(paths)).view(-1, 1, 1, 1).expand(-1, channels, 4, 6)
    data = SyntheticFacades(str(root), predict_folder=folder and str(folder))
    trainer = SimpleNamespace(default_root_dir=str(root), ckpt_path=None, datamodule=data)
    (writer or PredictionWriter()).on_predict_batch_end(
        trainer, None, {"image": images, "path": paths}, None, 0
    )
    return images


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_names_and_subfolders_are_kept(tmp_path):
    paths = sources(tmp_path / "in", "a.jpg", "b.tif", "sub/a.jpg", "sub/deep/c.d.png")
    images = write(tmp_path / "out", paths, tmp_path / "in")
    written = tmp_path / "out" / "predictions"
    assert files(written) == ["a.png", "b.png", "sub/a.png", "sub/deep/c.d.png"]
    for path, image in zip(["a.png", "b.png", "sub/a.png", "sub/deep/c.d.png"], images, strict=True):
        picture = Image.open(written / path)
        assert (picture.mode, picture.size) == ("RGB", (6, 4))
        assert picture.getpixel((0, 0)) == tuple(to_uint8(image)[:, 0, 0].tolist())


def test_sources_of_one_stem_do_not_collide(tmp_path):
    paths = sources(tmp_path / "in", "a.jpg", "a.PNG", "b.jpg")
    sources(tmp_path / "in", "b.txt")  # no image, so no reason for another name
    for path in paths:  # one at a time, as different processes would
        write(tmp_path / "out", [path], tmp_path / "in")
    assert files(tmp_path / "out" / "predictions") == ["a.PNG.png", "a.jpg.png", "b.png"]


def test_names_that_look_like_written_ones_do_not_collide(tmp_path):
    names = ["a.jpg", "a.png", "a.jpg.png", "a.jpg.png.tif", "B.png", "b.jpg", "x/a.png", "x_a.png"]
    for path in sources(tmp_path / "in", *names):
        write(tmp_path / "out", [path], tmp_path / "in")
    assert len({name.lower() for name in files(tmp_path / "out" / "predictions")}) == len(names)


def test_the_longest_names_of_sources_are_written(tmp_path):
    long = "x" * 250
    names = [f"{long}.jpg", f"{long}.png", "y" * 251 + ".png", "\N{GREEK SMALL LETTER ALPHA}" * 125 + ".png"]
    for path in sources(tmp_path / "in", *names):
        write(tmp_path / "out", [path], tmp_path / "in")
    assert len(files(tmp_path / "out" / "predictions")) == len(names)


def test_sources_outside_the_folder_keep_their_whole_path(tmp_path):
    paths = sources(tmp_path, "one/a.jpg", "two/a.jpg")
    write(tmp_path / "out", paths)
    inside = tmp_path.relative_to(tmp_path.anchor)
    assert files(tmp_path / "out" / "predictions") == [f"{inside}/one/a.png", f"{inside}/two/a.png"]


def test_a_source_is_never_replaced(tmp_path):
    written = tmp_path / "predictions"
    paths = sources(written, "a.png")
    with pytest.raises(UserError, match="would replace it"):
        write(tmp_path, paths, written)
    assert (written / "a.png").read_bytes() == b""


def test_grey_is_written_and_five_channels_are_refused(tmp_path):
    paths = sources(tmp_path / "in", "a.jpg")
    write(tmp_path / "out", paths, tmp_path / "in", channels=1)
    assert Image.open(tmp_path / "out" / "predictions" / "a.png").mode == "L"
    with pytest.raises(UserError, match="5 channels"):
        write(tmp_path / "out", paths, tmp_path / "in", channels=5)


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "predictions").write_text("")
    with pytest.raises(UserError, match=r"predictions.a\.png can't be written"):
        write(tmp_path, sources(tmp_path / "in", "a.jpg"), tmp_path / "in")


def test_trainer_predict_without_a_datamodule(tmp_path, caplog):
    paths = sources(tmp_path / "in", "a.jpg", "b.jpg")
    data = [{"source": torch.zeros(3, 4, 4), "path": path} for path in paths]
    make_trainer(tmp_path, PredictionWriter("here")).predict(TinyModule(), DataLoader(data, batch_size=2))
    names = [path.name for path in (tmp_path / "here").rglob("*.png")]
    assert sorted(names) == ["a.png", "b.png"]
    with caplog.at_level("INFO"):
        make_trainer(tmp_path, PredictionWriter("here")).predict(TinyModule(), DataLoader(data, batch_size=2))
    assert "Predictions: 2 in " in caplog.text
    assert "here, 2 in place of earlier ones." in caplog.text
