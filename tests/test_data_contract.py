"""The contract of the data: a module of a user's own, data outside of it, and options as they are written."""

import json
import re
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import lightning_gancompress
from lightning_gancompress import compress
from lightning_gancompress.callbacks import CollaborativePruning, UniformWidth
from lightning_gancompress.data import (
    DatasetDataModule,
    FolderDataModule,
    GANDataModule,
    ItemDataset,
    PairedDataModule,
    SyntheticFacades,
    UnpairedDataModule,
)
from lightning_gancompress.data.contract import PlainData, Split, adapt, data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import ResnetGenerator
from lightning_gancompress.tasks.role import Role

# -- the smallest data module of a user's own --------------------------------------------------------------


class Waves(Dataset):
    """Sixteen pairs of a wave and its mirror image, (3, 16, 24) in [-1, 1]."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        wave = torch.sin(torch.linspace(0, 9 + index, 24)).expand(3, 16, 24)
        noise = 0.01 * torch.randn(3, 16, 24)  # seeded by position, in training by epoch and `seed` as well
        return wave + noise, wave.flip(-1)


class WavesDataModule(GANDataModule):
    def __init__(self, batch_size: int = 4) -> None:
        super().__init__(batch_size=batch_size, search_batch_size=4)

    def datasets(self, split: Split, augment: bool = False) -> dict[Role, ItemDataset]:
        return {Role("generator"): ItemDataset(Waves(), split, seed=self.seed if augment else None)}


def test_the_smallest_data_module_is_searched_and_trained(tmp_path):
    data = WavesDataModule()
    small = compress(
        ResnetGenerator(ngf=4, n_blocks=1),
        data=data,
        budget=0.5,
        policy=CollaborativePruning(1, neighbours=3, members=2),
        epochs=1,
        decay_epochs=0,
        folder=tmp_path,
        accelerator="cpu",
        logger=False,
    )
    assert small(torch.zeros(1, 3, 16, 24)).shape == (1, 3, 16, 24)
    assert list((tmp_path / "cache").iterdir())  # of the neighbourhoods: its images can be told from others
    assert data.neighbourhoods is None


def test_what_it_knows_without_being_told():
    data = WavesDataModule()
    assert data.preprocessing == {
        "crop_size": [16, 24],
        "in_channels": 3,
        "out_channels": 3,
        "range": [-1.0, 1.0],
    }
    assert data.fingerprint() == WavesDataModule(batch_size=2).fingerprint()
    assert data.first_batch()["source"].shape == (1, 3, 16, 24)
    with pytest.raises(UserError, match=r"data: WavesDataModule has nothing to predict"):
        data.predict_dataloader()


def test_a_search_is_asked_for_and_ended():
    data = WavesDataModule()
    table = torch.arange(16)[:, None].add(torch.arange(2)) % 16
    before = data.train_dataloader()
    assert data.train_dataloader() is before  # its workers survive the epoch
    data.search_by({Role("generator"): table}, members=2)
    for batch in data.train_dataloader():
        assert all((b - a) % 16 in (1, 15) for a, b in batch["index"].view(-1, 2).tolist())
    data.end_search()
    after = data.train_dataloader()
    assert data.neighbourhoods is None
    data.end_search()
    assert data.train_dataloader() is after  # nothing to end


# -- data outside of the contract --------------------------------------------------------------------------


class Loaders(LightningDataModule):
    """Of the user's own."""

    def __init__(self, dataset: object, **options: object) -> None:
        super().__init__()
        self.dataset, self.options = dataset, options

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, **self.options)


class Pictures(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        source = torch.rand(3, 16, 24) * 2 - 1
        return {"source": source, "target": source.flip(-1)}


class Stream(IterableDataset):
    def __iter__(self):
        yield {"source": torch.zeros(3, 8, 8)}


def test_its_first_batch_costs_one_sample_and_no_random_number():
    state = torch.get_rng_state()
    batch = adapt(Loaders(Pictures(), batch_size=8, shuffle=True)).first_batch()
    assert batch["source"].shape == (1, 3, 16, 24)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "data",
    [
        Loaders(Stream(), batch_size=2),
        Loaders(TensorDataset(torch.zeros(4, 3, 8, 8)), batch_size=2),
        Loaders(Pictures(), batch_size=None),
        Loaders(Pictures(), batch_size=2, sampler=["a", "b"]),
        None,
    ],
)
def test_where_it_may_cost_more_there_is_none(data):
    assert adapt(data).first_batch() is None


def test_what_is_unknown_of_it():
    data = adapt(Loaders(Pictures()))
    assert isinstance(data, PlainData)
    assert data.preprocessing == {}
    assert data.fingerprint() is None
    assert data.predict_folder is None
    data.end_search()


def test_it_is_pruned_by_uniform_width_but_not_searched(tmp_path):
    settings = {"budget": 0.5, "epochs": 1, "decay_epochs": 0, "accelerator": "cpu", "logger": False}
    net, data = ResnetGenerator(ngf=4, n_blocks=1), Loaders(Pictures(), batch_size=4)
    small = compress(net, data=data, policy=UniformWidth(), folder=tmp_path / "uniform", **settings)
    assert small(torch.zeros(1, 3, 16, 24)).shape == (1, 3, 16, 24)
    with pytest.raises(UserError, match=r"data: Loaders can't be searched by neighbourhoods: use Dataset"):
        compress(net, data=data, policy=CollaborativePruning(1), folder=tmp_path / "search", **settings)


class Nothing(LightningModule):
    def training_step(self, batch: object) -> None:
        assert isinstance(data_of(self.trainer), PlainData)

    def configure_optimizers(self) -> None:
        return None


def test_loaders_alone(tmp_path):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(default_root_dir=tmp_path, max_steps=1, max_epochs=1, accelerator="cpu", **quiet)
    trainer.fit(Nothing(), DataLoader(Pictures(), batch_size=4))
    assert isinstance(data_of(None), PlainData)


# -- options -----------------------------------------------------------------------------------------------


def read(args: list[str], config: dict[str, object] | None = None) -> LightningDataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LightningDataModule, "data")
    given = [] if config is None else ["--config", json.dumps({"data": config})]
    return parser.instantiate_classes(parser.parse_args([*given, *args])).data


@pytest.mark.parametrize("kind", [PairedDataModule, UnpairedDataModule, FolderDataModule])
@pytest.mark.parametrize("prefix", ["--data", "--data.init_args"])
def test_options_from_the_command_line(kind, prefix):
    config = {"class_path": kind.__name__, "init_args": {"root": "photos", "batch_size": 2, "load_size": 40}}
    data = read([f"{prefix}.batch_size=8", f"{prefix}.crop_size=32", f"{prefix}.val_split=check"], config)
    assert type(data) is kind
    assert (data.batch_size, data.search_batch_size, data.num_workers) == (8, 8, 2)
    assert (data.options.load_size, data.options.crop_size, data.options.flip) == (40, 32, True)
    assert data.splits["test"] == ["test", "check"]


@pytest.mark.parametrize("name", ["teacher", "search", "finetune", "cyclegan"])
def test_options_recorded_in_checkpoints_of_before(name):
    path = Path(__file__).parent / "checkpoints" / "old" / f"{name}.ckpt"
    recorded = torch.load(path, weights_only=False)["run_config"]["data"]
    data = read(["--data.num_workers=1"], recorded)
    given = recorded["init_args"] | {"num_workers": 1, "load_size": 32}
    assert {option: getattr(data, option) for option in given} | {"load_size": 32} == given
    assert data.preprocessing["load_size"] == data.preprocessing["crop_size"] == 32


def test_options_by_keyword():
    data = SyntheticFacades("pictures", 8, 2, 2, 40, batch_size=2, num_workers=0)
    assert (data.n_train, data.size, data.batch_size, data.crop_size, data.direction) == (
        8,
        40,
        2,
        40,
        "BtoA",
    )
    assert DatasetDataModule(Waves(), Waves()).num_workers == 0
    assert UnpairedDataModule("photos").batch_size == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size of FolderDataModule is 0: give a whole number from 1"),
        ({"num_workers": -1}, "num_workers of FolderDataModule is -1: give a whole number from 0 to 1,024"),
        ({"in_channels": 2}, "in_channels of FolderDataModule is 2: give a whole number out of 1 "),
    ],
)
def test_each_option_knows_its_range(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        FolderDataModule("photos", **options)


# -- nobody asks behind the contract's back ----------------------------------------------------------------


def test_no_question_to_a_data_module_but_by_the_contract():
    package = Path(lightning_gancompress.__file__).parent
    asked = re.compile(r"(get|set|has)attr\([^()]*(\(.*)?\bdata_?module\b|\.neighbourhoods = |\.datamodule\b")
    found = [
        f"{path.relative_to(package)}:{number}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        if path != package / "data" / "contract.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if asked.search(line)
    ]
    assert not found, "ask data_of(trainer) instead:\n" + "\n".join(found)
