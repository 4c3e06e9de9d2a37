"""Checkpoints that were written before classes and files moved: they load, are tested, and go on."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch

from lightning_gancompress import load_generator
from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.networks import ResnetGenerator, channel_widths

OLD = Path(__file__).parent / "old"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where they were written: data and teachers are recorded relative to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightning_gancompress.search.agents._INPUT", 4)
    monkeypatch.setattr("lightning_gancompress.search.agents._HIDDEN", 8)
    for name in ("teacher", "search", "finetune", "cyclegan"):
        tiny.last(Path("runs", name)).parent.mkdir(parents=True)
        shutil.copy(OLD / f"{name}.ckpt", tiny.last(Path("runs", name)))
    return tmp_path


@pytest.mark.parametrize("name", ["teacher", "search", "finetune", "cyclegan"])
def test_its_generator_loads(name: str) -> None:
    torch.manual_seed(0)
    source = torch.rand(2, 3, 32, 32) * 2 - 1
    image = load_generator(OLD / f"{name}.ckpt")(source)
    assert image.shape == source.shape
    assert image.abs().max() <= 1


@pytest.mark.parametrize("name", ["finetune", "cyclegan"])
def test_its_student_is_small_and_its_teacher_whole(name: str) -> None:
    direction = "_AtoB" if name == "cyclegan" else ""
    small = load_generator(OLD / f"{name}.ckpt", network=f"student.generator{direction}")
    whole = load_generator(OLD / f"{name}.ckpt", network=f"teacher.generator{direction}")
    assert channel_widths(whole) == channel_widths(ResnetGenerator(ngf=4, n_blocks=1))
    assert channel_widths(small).keys() == channel_widths(whole).keys()
    assert channel_widths(small) != channel_widths(whole)
    state = tiny.read(OLD / f"{name}.ckpt")["state_dict"]
    for key, tensor in small.state_dict().items():
        assert torch.equal(tensor, state[f"student.generator{direction}.{key}"])


@pytest.mark.parametrize("name", ["teacher", "search", "finetune", "cyclegan"])
def test_it_is_tested_with_its_own_settings(name: str, old: Path) -> None:
    folder = old / "runs" / name
    main(["test", "--ckpt_path", str(tiny.last(folder)), f"--trainer.default_root_dir={folder}"])
    assert len(list((folder / "test").glob("results*.json"))) == 1


@pytest.mark.parametrize(("name", "epoch"), [("search", 0), ("finetune", 2), ("cyclegan", 2)])
def test_it_goes_on_to_the_end_of_its_schedule(name: str, epoch: int, old: Path) -> None:
    folder = old / "runs" / name
    before = tiny.read(tiny.last(folder))
    main(["fit", "--ckpt_path", str(tiny.last(folder)), f"--trainer.default_root_dir={folder}"])
    after = tiny.read(tiny.last(folder))
    assert (before["epoch"], after["epoch"]) == (epoch, 3)
    assert after["gancompress"]["phase"] == "finetune"
    (small,) = folder.glob("generator*.pth")
    role = small.stem
    for key, tensor in load_generator(small).state_dict().items():
        assert torch.equal(tensor, after["state_dict"][f"student.{role}.{key}"])


@pytest.mark.parametrize("prefix", ["teacher.generator", "student.generator"])
def test_a_header_without_a_network_is_damaged(prefix: str) -> None:
    content = tiny.read(OLD / "finetune.ckpt")
    del content["gancompress"]["networks"][prefix]
    with pytest.raises(UserError, match=rf"is damaged, its header does not describe {prefix}: copy it again"):
        CompressionModule().on_load_checkpoint(content)
