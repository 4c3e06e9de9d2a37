"""Networks whose first registered layer doesn't tell what they read, from the first command to the last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress import compress, load_generator
from lightning_gancompress.callbacks import UniformWidth
from lightning_gancompress.checkpoints import load_networks
from lightning_gancompress.cli import main
from lightning_gancompress.data import FolderDataModule
from lightning_gancompress.evaluation.metrics import MACS_EXACT
from lightning_gancompress.networks import ResnetGenerator
from lightning_gancompress.reporting.page.run import read_generator
from lightning_gancompress.tasks import Role


class LastFirst(nn.Module):
    """Registers its output layer first."""

    def __init__(self, channels: int = 3, width: int = 12) -> None:
        super().__init__()
        self.tail = nn.Conv2d(width, channels, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, source: Tensor) -> Tensor:
        return self.tail(self.middle(self.head(source).relu()).relu()).tanh()


class Unshuffled(LastFirst):
    """Begins with a PixelUnshuffle and ends with a PixelShuffle."""

    def __init__(self, channels: int = 3, width: int = 12) -> None:
        super().__init__(4 * channels, width)
        self.down, self.up = nn.PixelUnshuffle(2), nn.PixelShuffle(2)

    def forward(self, source: Tensor) -> Tensor:
        return self.up(super().forward(self.down(source)))


class Coordinates(LastFirst):
    """Shows its first layer where each pixel is."""

    def __init__(self, channels: int = 3, width: int = 12) -> None:
        super().__init__(channels, width)
        self.head = nn.Conv2d(channels + 2, width, 3, padding=1)

    def forward(self, source: Tensor) -> Tensor:
        batch, _, height, width = source.shape
        rows = torch.linspace(-1, 1, height).view(1, 1, height, 1).expand(batch, 1, height, width)
        columns = torch.linspace(-1, 1, width).view(1, 1, 1, width).expand(batch, 1, height, width)
        return super().forward(torch.cat([source, rows, columns], 1))


class Masked(LastFirst):
    """Shows its first layer which pixels are dark."""

    def __init__(self, channels: int = 3, width: int = 12) -> None:
        super().__init__(channels, width)
        self.head = nn.Conv2d(channels + 1, width, 3, padding=1)

    def forward(self, source: Tensor) -> Tensor:
        mask = (source.mean(1, keepdim=True) < 0).to(source)
        return super().forward(torch.cat([source, mask], 1))


class Judge(nn.Module):
    """Registers its logits first."""

    def __init__(self, channels: int, width: int = 8) -> None:
        super().__init__()
        self.logits, self.head = nn.Conv2d(width, 1, 1), nn.Conv2d(channels, width, 4, 2, 1)

    def forward(self, pair: Tensor) -> Tensor:
        return self.logits(self.head(pair).relu())


class Noise(Dataset[dict[str, Tensor]]):
    """Pairs of any shape."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.shape = (channels, height, width)

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        source = torch.rand(self.shape, generator=torch.Generator().manual_seed(index)) * 2 - 1
        return {"source": source, "target": source.flip(-1)}


def counted_macs(network: nn.Module, *shape: int) -> int:
    """Multiply-adds by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


STRANGERS = [
    (LastFirst, (3, 16, 16)),
    (LastFirst, (6, 16, 24)),
    (Unshuffled, (3, 16, 24)),
    (Unshuffled, (1, 16, 16)),
    (Coordinates, (3, 16, 16)),
    (Coordinates, (6, 16, 24)),
    (Masked, (1, 16, 16)),
]


@pytest.mark.parametrize(("kind", "shape"), STRANGERS, ids=lambda x: getattr(x, "__name__", x))
def test_from_fit_to_export(kind: type[nn.Module], shape: tuple[int, int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator, judge = kind(shape[0]), Judge(2 * shape[0])
    torch.save(generator.state_dict(), tmp_path / "generator.pth")
    torch.save(judge.state_dict(), tmp_path / "judge.pth")
    args = tiny.compression(tmp_path / "run", tmp_path)
    args = [arg for arg in args if not arg.startswith("--model.teacher")]
    args += [f"--model.teacher.generator={tmp_path}/generator.pth"]
    args += [f"--model.teacher.discriminator={tmp_path}/judge.pth"]
    args += [f"--model.generator=test_inputs.{kind.__name__}", f"--model.generator.channels={shape[0]}"]
    args += ["--model.discriminator=test_inputs.Judge", f"--model.discriminator.channels={2 * shape[0]}"]
    data = ["--data=DatasetDataModule", "--data.train=test_inputs.Noise", "--data.batch_size=7"]
    data += [f"--data.train.{n}={s}" for n, s in zip(("channels", "height", "width"), shape, strict=True)]
    main([*args, *data])
    small, last = load_generator(tmp_path / "run" / "generator.pth"), tiny.last(tmp_path / "run")
    macs = {"teacher": counted_macs(generator, *shape), "student": counted_macs(small, *shape)}
    assert 0.2 < macs["student"] / macs["teacher"] <= 0.3
    pair = (2 * shape[0], *shape[1:])
    judge_macs = counted_macs(load_generator(last, network="discriminator"), *pair)
    assert 0.2 < judge_macs / counted_macs(judge, *pair) <= 0.5

    main(["profile", f"--ckpt_path={last}", f"--json={tmp_path}/macs.json"])
    found = json.loads((tmp_path / "macs.json").read_text())
    assert {name: total["macs_exact"] for name, total in found.items()} == macs
    main(["profile", *args[1:], *data, f"--json={tmp_path}/macs.json"])
    assert json.loads((tmp_path / "macs.json").read_text())["teacher"]["macs_exact"] == macs["teacher"]
    source = torch.rand(2, *shape) * 2 - 1
    for path in (last, tmp_path / "run" / "generator.pth"):
        main(["export", f"--ckpt_path={path}", "--format=torch", f"--output={tmp_path}/small.pt2"])
        exported = torch.export.load(tmp_path / "small.pt2").module()
        torch.testing.assert_close(exported(source), small(source), atol=1e-5, rtol=0)


def photos(folder: Path, size: tuple[int, int] = (40, 30)) -> Path:
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", size, (20 * number, 0, 90)).save(folder / f"{number}.png")
    return folder


def quick(folder: Path, generator: nn.Module, data: object, **arguments: object) -> nn.Module:
    settings = {"budget": 0.5, "epochs": 1, "decay_epochs": 0, "accelerator": "cpu"}
    settings |= {} if "policy" in arguments else {"search_epochs": 1}  # a policy has its own
    return compress(generator, data=data, folder=folder, **settings | {"logger": False} | arguments)


@pytest.mark.parametrize(("kind", "channels"), [(Unshuffled, 3), (Coordinates, 1), (Masked, 3)])
def test_a_folder_is_read_as_the_network_reads_it(
    kind: type[nn.Module], channels: int, tmp_path: Path
) -> None:
    arguments = {"size": 32, "missing": "train", "policy": UniformWidth()}
    small = quick(tmp_path, kind(channels), photos(tmp_path / "photos"), **arguments)
    assert small(torch.zeros(1, channels, 32, 32)).shape == (1, channels, 32, 32)
    judge = load_networks(tmp_path / "checkpoints" / "last.ckpt", "discriminator")
    assert judge["student.discriminator"][1].init_args["in_channels"] == 2 * channels


def test_pictures_that_keep_their_size(tmp_path: Path) -> None:
    folder, shape = photos(tmp_path / "photos", (48, 20)), (3, 20, 48)
    data = FolderDataModule(str(folder), preprocess="none", num_workers=0)
    whole = ResnetGenerator(ngf=4, n_blocks=1)
    quick(tmp_path / "run", whole, data, policy=UniformWidth())
    file, last = tmp_path / "run" / "generator.pth", tiny.last(tmp_path / "run")
    assert json.loads(file.with_suffix(".json").read_text())["preprocessing"]["image_size"] == [20, 48]
    assert tiny.read(last)["gancompress"]["preprocessing"]["image_size"] == [20, 48]
    main(["profile", f"--ckpt_path={file}", f"--json={tmp_path}/macs.json"])
    macs = json.loads((tmp_path / "macs.json").read_text())["student"]["macs_exact"]
    assert macs == counted_macs(load_generator(file), *shape) <= 0.5 * counted_macs(whole, *shape)


class Loaders(LightningDataModule):
    """Of the user's own: says nothing of its images."""

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(Noise(6, 256, 256), batch_size=8)


def test_data_that_says_nothing_of_its_images(tmp_path: Path) -> None:
    small = quick(tmp_path, Coordinates(6, 4), Loaders(), policy=UniformWidth())
    assert small(torch.zeros(1, 6, 16, 24)).shape == (1, 6, 16, 24)


class Stop(Callback):
    """Ctrl-C in the search."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def test_a_search_that_was_stopped(tmp_path: Path) -> None:
    arguments = {"search_epochs": 2, "callbacks": [Stop()]}
    teacher = Coordinates(6)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, teacher, Noise(6, 16, 24), **arguments)
    last = tmp_path / "checkpoints" / "last.ckpt"
    small = load_generator(last, architecture=Coordinates(6))
    assert small(torch.zeros(1, 6, 16, 24)).shape == (1, 6, 16, 24)
    recorded = tiny.read(last)["gancompress"]["preprocessing"]
    shown = read_generator(tmp_path, Role("generator"), Coordinates(6), small, recorded)
    assert shown.size == (16, 24)
    assert shown.student[MACS_EXACT] == counted_macs(small, 6, 16, 24)
    resumed = quick(tmp_path, teacher, Noise(6, 16, 24), search_epochs=2, resume=True)
    assert counted_macs(resumed, 6, 16, 24) <= 0.5 * counted_macs(Coordinates(6), 6, 16, 24)
