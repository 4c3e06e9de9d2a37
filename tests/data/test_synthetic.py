import json
import os

import numpy as np
import pytest
from PIL import Image

from lightning_gancompress.data import SyntheticFacades, SyntheticUnpairedFacades
from lightning_gancompress.data.canvas import LABELS
from lightning_gancompress.data.facades import render_facade
from lightning_gancompress.errors import UserError


def facades(root, **options):
    return SyntheticFacades(
        str(root), **{"n_train": 3, "n_val": 1, "n_test": 1, "size": 32, "num_workers": 0, **options}
    )


@pytest.mark.parametrize("size", [32, 64, 256])
def test_labels_are_clean_and_photos_are_not(size):
    photo, label = render_facade(size, seed=0, index=1)
    assert photo.size == label.size == (size, size)
    colours = {tuple(colour) for colour in np.asarray(label).reshape(-1, 3)}
    assert colours <= set(LABELS.values())
    assert {LABELS[name] for name in ("sky", "roof", "window", "door", "ground", "cornice")} <= colours
    assert len({tuple(colour) for colour in np.asarray(photo).reshape(-1, 3)}) > 20 * len(colours)


def test_same_seed_and_index_give_the_same_picture():
    first, again, other = (np.asarray(render_facade(64, 0, i)[0]) for i in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, np.asarray(render_facade(64, 1, 1)[0]))


def test_photos_follow_from_labels():
    """The mean colour of a class predicts unseen photos better than the mean of all."""
    train, test = ([render_facade(64, 0, i) for i in span] for span in (range(24), range(24, 32)))

    def stack(pairs, side):
        return np.concatenate([np.asarray(pair[side]).reshape(-1, 3) for pair in pairs]).astype(float)

    photo, label = stack(test, 0), stack(test, 1)
    guess = np.zeros_like(photo)
    for colour in LABELS.values():
        known = (stack(train, 1) == colour).all(1)
        if known.any():
            guess[(label == colour).all(1)] = stack(train, 0)[known].mean(0)
    error, baseline = abs(photo - guess).mean(), abs(photo - stack(train, 0).mean(0)).mean()
    assert error < 0.5 * baseline


def test_files_are_written_once_and_beside_those_of_other_settings(tmp_path):
    root = tmp_path / "data" / "facades"
    data = facades(root, batch_size=1)
    data.prepare_data()
    assert sorted(path.name for path in (root / "train").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    assert Image.open(root / "test" / "0004.png").size == (64, 32)
    assert [path.name for path in root.parent.iterdir()] == ["facades"]  # nothing temporary stays
    stamp = (root / "facades.json").stat().st_mtime_ns
    facades(root).prepare_data()
    assert (root / "facades.json").stat().st_mtime_ns == stamp
    others = [facades(root, seed=1, n_train=2), facades(root, size=64), facades(root, n_val=2)]
    for other in others:
        other.prepare_data()
        assert all(path.is_relative_to(other.facades.folder) for (path, _), *_ in other.files("val").values())
    assert len(list(root.iterdir())) == 4 + 3
    assert len(list((others[0].folder / "train").iterdir())) == 2
    assert json.loads((others[0].folder / "facades.json").read_text())["seed"] == 1
    assert len(list((root / "train").iterdir())) == 3  # as before


def test_runs_that_begin_at_once_keep_their_pictures(tmp_path, monkeypatch):
    """The root gets other pictures while those of a run are drawn."""
    first, second = facades(tmp_path / "root"), facades(tmp_path / "root", size=64)
    write = first.facades.write

    def interrupted(folder):
        write(folder)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)  # another process
            second.prepare_data()

    monkeypatch.setattr(first.facades, "write", interrupted)
    first.prepare_data()
    assert [Image.open(data.files("test")["generator"][0][0]).height for data in (first, second)] == [32, 64]


def test_labels_translate_to_photos_by_default(tmp_path):
    data = facades(tmp_path / "facades")
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    photo, label = render_facade(32, seed=0, index=3)
    for key, image in (("source", label), ("target", photo)):
        expected = np.asarray(image).astype(np.float32) / 127.5 - 1
        np.testing.assert_allclose(batch[key][0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_two_domains_show_different_buildings(tmp_path):
    options = {"n_train": 3, "n_val": 2, "n_test": 1, "size": 32, "num_workers": 0, "batch_size": 1}
    data = SyntheticUnpairedFacades(str(tmp_path / "facades"), **options)
    data.prepare_data()
    data.setup("fit")
    names = {
        folder.name: sorted(file.stem for file in folder.iterdir()) for folder in data.folder.glob("*[AB]")
    }
    assert names["trainA"] == ["0000", "0001", "0002"]
    assert names["trainB"] == ["0003", "0004", "0005"]
    assert names["valB"] == ["0008", "0009"]
    assert len(set().union(*names.values())) == 12  # no building twice
    for file, side in (("trainA/0001.png", 1), ("trainB/0004.png", 0)):
        picture = np.asarray(render_facade(32, 0, int(file[-8:-4]))[side])
        assert np.array_equal(np.asarray(Image.open(data.folder / file)), picture)
    pairs = facades(data.folder)  # of other settings
    pairs.prepare_data()
    assert (pairs.facades.folder / "train").is_dir()
    assert (data.folder / "trainA").is_dir()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"a folder of their own, but .* holds thesis\.txt"):
        facades(tmp_path).prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"photos": "mine"}', "no JSON", "[" * 100_000])
def test_the_photos_of_others_are_never_removed(content, tmp_path):
    """Whatever a file of the manifest's name holds."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wedding.jpg").touch()
    (tmp_path / "facades.json").write_text(content)
    with pytest.raises(UserError, match="a folder of their own"):
        facades(tmp_path).prepare_data()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["facades.json", "photos", "wedding.jpg"]


def test_a_manifest_of_known_form_removes_nothing_either(tmp_path):
    data = facades(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "facades.json").write_text(json.dumps({**data.facades.manifest, "size": 64}))
    data.prepare_data()
    assert (tmp_path / "photos").is_dir()
    folder = data.facades.folder
    (folder / "facades.json").write_text("{}")
    with pytest.raises(UserError, match="a folder of their own"):
        data.prepare_data()
    assert (folder / "train" / "0000.png").is_file()


def test_unwritable_place(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"can't be written to .*file/facades"):
        facades(tmp_path / "file" / "facades").prepare_data()


def test_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_gancompress.data.synthetic.render_facade", full)
    with pytest.raises(UserError, match="No space left"):
        facades(tmp_path / "facades").prepare_data()
    assert not list(tmp_path.iterdir())
