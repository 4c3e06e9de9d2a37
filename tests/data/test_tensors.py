import random

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from lightning_gancompress.callbacks import PredictionWriter
from lightning_gancompress.data import DatasetDataModule
from lightning_gancompress.data.reading import ImageError
from lightning_gancompress.errors import UserError


def images(count, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *(shape or (5, 8, 8)), generator=generator) * 2 - 1


class Items(Dataset):
    """Whatever is put in."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Noisy(Dataset):
    """Items that draw from all global generators."""

    def __init__(self, size: int = 8) -> None:
        self.size = size

    def __len__(self):
        return 20

    def __getitem__(self, index):
        channels = torch.rand(1).item(), float(np.random.rand()), random.random()
        return torch.tensor(channels)[:, None, None].expand(3, self.size, self.size)


def indices(loader):
    return [i for batch in loader for i in batch["index"].tolist()]


@pytest.mark.parametrize(
    "form",
    [lambda x, y: {"source": x, "target": y, "name": "?"}, lambda x, y: (x, y), lambda x, y: [x.double(), y]],
)
def test_pairs(form):
    x, y = images(12), images(12, 2, 16, 16)
    data = DatasetDataModule(Items([form(*pair) for pair in zip(x, y, strict=True)]), holdout=0, batch_size=4)
    batch = next(iter(data.train_dataloader()))
    assert batch.keys() == {"source", "target", "index", "path"}
    assert torch.equal(batch["source"], x[batch["index"]])
    assert torch.equal(batch["target"], y[batch["index"]])
    assert data.preprocessing == {
        "crop_size": 8,
        "in_channels": 5,
        "out_channels": 2,
        "range": [-1.0, 1.0],
    }


@pytest.mark.parametrize(
    "form", [lambda x: {"source": x, "target": None}, lambda x: x, lambda x: (x,), lambda x: x.half()]
)
def test_sources(form):
    x = images(12, 1, 8, 12).half().float()
    data = DatasetDataModule(Items([form(image) for image in x]), holdout=0)
    batches = list(data.val_dataloader())
    assert all(batch.keys() == {"source", "index", "path"} for batch in batches)
    assert torch.equal(torch.cat([batch["source"] for batch in batches]), x)
    assert data.crop_size == (8, 12)
    assert data.preprocessing == {"crop_size": [8, 12], "in_channels": 1, "range": [-1.0, 1.0]}


def test_a_share_is_held_out():
    x = images(20)
    data = DatasetDataModule(TensorDataset(x), holdout=0.2)
    plain, val = list(data.plain_train_loader()), list(data.val_dataloader())
    assert [sum(len(batch["path"]) for batch in batches) for batches in (plain, val)] == [16, 4]
    assert indices(plain) == list(range(16))
    assert indices(val) == indices(data.test_dataloader()) == list(range(4))
    paths = [path for batch in plain + val for path in batch["path"]]
    assert sorted(int(path.partition("/")[2]) for path in paths) == list(range(20))
    assert torch.equal(val[0]["source"], torch.stack([x[int(p.partition("/")[2])] for p in val[0]["path"]]))
    again = DatasetDataModule(TensorDataset(x), holdout=0.2, seed=1)
    assert [batch["path"] for batch in again.val_dataloader()] == [batch["path"] for batch in val]


def test_data_sets_of_their_own():
    x, y = images(9), images(3, seed=1)
    for name in ("val", "test"):
        data = DatasetDataModule(TensorDataset(x), **{name: TensorDataset(y)})
        assert indices(data.plain_train_loader()) == list(range(9))
        for loader in (data.val_dataloader(), data.test_dataloader()):
            assert torch.equal(next(iter(loader))["source"], y)
    data = DatasetDataModule(TensorDataset(x), val=TensorDataset(y), test=TensorDataset(x))
    paths = {
        path
        for loader in (data.plain_train_loader(), data.val_dataloader(), data.test_dataloader())
        for batch in loader
        for path in batch["path"]
    }
    assert len(paths) == 9 + 3 + 9


def test_groups_by_table():
    x = images(11)
    data = DatasetDataModule(TensorDataset(x), holdout=0, search_batch_size=4)
    table = torch.arange(11)[:, None].add(torch.arange(2)) % 11
    data.search_by({"generator": table}, 2)
    groups = [pair for batch in data.train_dataloader() for pair in batch["index"].view(-1, 2).tolist()]
    assert len(groups) == 4
    assert {(a - b) % 11 for a, b in groups} <= {1, 10}


def test_random_items_are_the_same_in_the_search_and_others_in_training():
    data = DatasetDataModule(Noisy(), holdout=0, batch_size=20, eval_batch_size=20)
    plain = next(iter(data.plain_train_loader()))["source"][:, :, 0, 0]
    assert len(plain.unique()) == plain.numel()
    data.search_by({"generator": torch.arange(20)[:, None].add(torch.arange(4)) % 20}, 4)
    for epoch in (0, 1):
        batch = next(iter(data.train_dataloader()))
        assert torch.equal(batch["source"][:, :, 0, 0], plain[batch["index"]])
        data.train_dataloader().sampler.set_epoch(epoch)
    data.end_search()

    def epoch(number, data=data):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        batch = next(iter(loader))
        return batch["source"][batch["index"].argsort()]

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(0), epoch(1))
    assert not torch.equal(epoch(0), epoch(0, DatasetDataModule(Noisy(), holdout=0, batch_size=20, seed=1)))


def test_the_random_numbers_of_the_run_are_left_alone():
    data = DatasetDataModule(Noisy(), holdout=0)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    data.fingerprint()
    assert torch.equal(torch.rand(3), expected)


def test_items_from_generators_of_their_own():
    generator = torch.Generator().manual_seed(0)

    class Unruly(Noisy):
        def __getitem__(self, index):
            return torch.rand(3, 8, 8, generator=generator)

    with pytest.raises(UserError, match=r"train\[0\] is not the same when it is read again"):
        DatasetDataModule(Unruly()).setup("fit")


def test_fingerprint_notices_other_data():
    x = images(200)
    changed = x.clone()
    changed[0, 0, 0, 0] += 0.01

    def digest(*tensors, **options):
        return DatasetDataModule(TensorDataset(*tensors), **{"holdout": 0, **options}).fingerprint()

    known = digest(x)
    assert known == digest(x.clone(), batch_size=4, seed=3)
    others = [digest(changed), digest(x[:199]), digest(x, x), digest(x, holdout=0.5), digest(x.flip(3))]
    assert len({known, *others}) == 6


def test_predict():
    x, y = images(12), images(3, seed=1)
    data = DatasetDataModule(TensorDataset(x, x), predict=TensorDataset(y, y))
    (batch,) = data.predict_dataloader()
    assert batch.keys() == {"source", "index", "path"}
    assert torch.equal(batch["source"], y)
    with pytest.raises(UserError, match=r"set data\.predict"):
        DatasetDataModule(TensorDataset(x)).predict_dataloader()


class Flip(LightningModule):
    def predict_step(self, batch, batch_idx):
        return {"image": batch["source"].flip(3), "path": batch["path"]}


def test_predicted_images_are_named_by_position(tmp_path):
    data = DatasetDataModule(TensorDataset(images(12, 3, 8, 8)), predict=TensorDataset(images(3, 3, 8, 8)))
    for _ in range(2):  # the second replaces what the first has written
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(
            accelerator="cpu", default_root_dir=tmp_path, callbacks=[PredictionWriter()], **quiet
        )
        trainer.predict(Flip(), data)
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["0.png", "1.png", "2.png"]


def test_from_the_command_line():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DatasetDataModule, "data")
    own = {"class_path": f"{__name__}.Noisy", "init_args": {"size": 4}}
    settings = {"class_path": "DatasetDataModule", "init_args": {"train": own, "holdout": 0.5}}
    data = parser.instantiate_classes(parser.parse_object({"data": settings})).data
    assert data.crop_size == 4
    assert len(indices(data.plain_train_loader())) == 10


class Copy(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(5, 5, 1)
        self.validated = []

    def training_step(self, batch, batch_idx):
        return self.layer(batch["source"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.validated += batch["path"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_trains_and_validates(tmp_path):
    module = Copy()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", num_sanity_val_steps=0, default_root_dir=tmp_path, **quiet
    )
    trainer.fit(
        module, DatasetDataModule(TensorDataset(images(12)), val=TensorDataset(images(5)), batch_size=3)
    )
    assert trainer.global_step == 4
    assert module.validated == [f"val/{i}" for i in range(5)]


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            images(1)[0] * 127 + 128,
            r"The source of train\[3\] has values from .* scale it, by x / 127\.5 - 1",
        ),
        ((images(1)[0] * 127 + 128).byte(), r"has values from .* to 25\d, where \[-1, 1\] is expected"),
        (images(1)[0] * torch.nan, "values from nan"),
        (images(1), r"The source of train\[3\] is a tensor \(1, 5, 8, 8\), not a tensor \(channels,"),
        ((images(1)[0], 7), r"The target of train\[3\] is a int, not a tensor"),
        (np.zeros((5, 8, 8)), r"The source of train\[3\] is a ndarray"),
        ((images(1)[0],) * 3, r"train\[3\] has 3 parts: return a source, or a source and a target"),
        ({"image": images(1)[0]}, r"train\[3\] has no 'source', but 'image'"),
        (images(1, 3, 8, 8)[0], r"train\[3\] has a source of 3 .*, but train\[0\] has a source of 5"),
        ((images(1)[0],) * 2, r"a source of 5 .* and a target of 5 .*, but train\[0\] has a source of 5"),
        (images(1, 5, 8, 9)[0], r"differ in size \(train/2: 8x8, train/3: 9x8\)"),
    ],
)
def test_bad_items(item, message):
    data = DatasetDataModule(Items([*images(3), item]), holdout=0, eval_batch_size=4)
    with pytest.raises(ImageError, match=message):
        list(data.plain_train_loader())


def test_targets_of_different_sizes():
    x, y = images(2), [images(1)[0], images(1, 5, 4, 4)[0]]
    data = DatasetDataModule(Items(list(zip(x, y, strict=True))), holdout=0)
    with pytest.raises(ImageError, match="differ in size"):
        list(data.plain_train_loader())


def test_bad_data_sets():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(images(3))

    for stream in (Stream(), iter(images(3))):
        with pytest.raises(UserError, match=r"data set for train is a .*, which can't be indexed"):
            DatasetDataModule(stream)
    with pytest.raises(UserError, match="data set for val is a Stream"):
        DatasetDataModule(Items(images(3)), val=Stream())
    with pytest.raises(UserError, match="data set for train is empty"):
        DatasetDataModule(Items([])).setup("fit")
    with pytest.raises(UserError, match="data set for val is empty"):
        DatasetDataModule(Items(images(3)), val=Items([])).setup("fit")
    with pytest.raises(UserError, match=r"train\[0\] is the only image"):
        DatasetDataModule(Items(images(1))).setup("fit")
    with pytest.raises(UserError, match="holdout of DatasetDataModule is 1"):
        DatasetDataModule(Items(images(1)), holdout=1)
