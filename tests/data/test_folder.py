import pytest
import torch
from noise_files import noise

from lightning_gancompress.data import FolderDataModule
from lightning_gancompress.errors import UserError


def fill(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise(8, 8, seed=i).save(folder / f"{i:02}.png")


def module(root, **options):
    return FolderDataModule(str(root), **{"load_size": 8, "crop_size": 8, "num_workers": 0, **options})


def names(data, split):
    return [path.name for (path,) in data.files(split).get("generator", [])]


def test_batches_hold_sources_only(tmp_path):
    fill(tmp_path, 12)
    batch = next(iter(module(tmp_path, batch_size=4, in_channels=1).train_dataloader()))
    assert set(batch) == {"source", "index", "path"}
    assert batch["source"].shape == (4, 1, 8, 8)
    batch = next(iter(module(tmp_path).val_dataloader()))
    assert set(batch) == {"source", "index", "path"}


def test_a_share_is_held_out_by_name(tmp_path):
    fill(tmp_path, 20)
    train, val = names(module(tmp_path), "train"), names(module(tmp_path), "val")
    assert (len(train), len(val)) == (18, 2)
    assert sorted(train + val) == [f"{i:02}.png" for i in range(20)]
    assert names(module(tmp_path, seed=1), "val") == names(module(tmp_path), "test") == val
    noise(8, 8, 0).save(tmp_path / "20.png")
    assert len(set(names(module(tmp_path), "val")) & set(val)) >= 1  # a new image moves one at most
    assert len(names(module(tmp_path, holdout=0.5), "val")) == 10


def test_without_holdout_everything_trains(tmp_path):
    fill(tmp_path, 3)
    data = module(tmp_path, holdout=0.0)
    assert names(data, "train") == names(data, "val") == ["00.png", "01.png", "02.png"]


def test_folders_of_splits_come_first(tmp_path):
    fill(tmp_path / "train", 10)
    data = module(tmp_path)
    assert (len(names(data, "train")), len(names(data, "val"))) == (9, 1)
    fill(tmp_path / "test", 4)
    data = module(tmp_path, max_train=7)
    assert [len(names(data, split)) for split in ("train", "val", "test")] == [7, 4, 4]


def test_groups_by_table(tmp_path):
    fill(tmp_path, 11)
    data = module(tmp_path, holdout=0.0, search_batch_size=4, load_size=12)
    plain = torch.cat([batch["source"] for batch in data.plain_train_loader()])
    table = torch.arange(11)[:, None].add(torch.arange(2)) % 11
    data.search_by({"generator": table}, 2)
    for batch in data.train_dataloader():
        assert torch.equal(batch["source"], plain[batch["index"]])
        for a, b in batch["index"].view(-1, 2).tolist():
            assert (a - b) % 11 in {1, 10}


def test_preprocessing_knows_no_targets(tmp_path):
    fill(tmp_path, 3)
    assert "out_channels" not in module(tmp_path).preprocessing
    assert module(tmp_path).fingerprint() != module(tmp_path, holdout=0.5).fingerprint()


def test_one_image(tmp_path):
    fill(tmp_path, 1)
    with pytest.raises(UserError, match=r"00\.png is the only image, .* set holdout to 0"):
        module(tmp_path).setup("fit")
    module(tmp_path, holdout=0.0).setup("fit")


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(UserError, match=r"No train images in .* holds nothing"):
        module(tmp_path).setup("fit")
    fill(tmp_path / "val", 2)
    with pytest.raises(UserError, match=r"No train images in .* holds val/"):
        module(tmp_path).setup("fit")


def test_two_domains(tmp_path):
    fill(tmp_path / "trainA", 2)
    fill(tmp_path / "trainB", 2)
    with pytest.raises(
        UserError, match=r"two domains: set data\.root to .*trainA, or use UnpairedDataModule"
    ):
        module(tmp_path).setup("fit")


def test_share_out_of_range(tmp_path):
    with pytest.raises(UserError, match=r"holdout of FolderDataModule is 1\.0"):
        module(tmp_path, holdout=1.0)
