"""Networks of the user's own, by class path and state dict, from the first command to the last."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from lightning_gancompress import load_generator
from lightning_gancompress.cli import main
from lightning_gancompress.pruning import count_macs

SOURCE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def save(network: nn.Module, path: Path) -> nn.Module:
    torch.save(network.state_dict(), path)
    return network.eval()


@pytest.fixture
def own(tmp_path: Path) -> tuple[nn.Module, list[str]]:
    """A generator, and the options that name it and its weights."""
    torch.manual_seed(0)
    network = save(tiny.Own(12), tmp_path / "weights.pth")
    return network, ["--model.generator=tiny.Own", "--model.generator.width=12"]


def assert_small(folder: Path, whole: nn.Module) -> nn.Module:
    """The network that a run left, which is the student of its checkpoint and within the budget."""
    small = load_generator(folder / "generator.pth")
    assert isinstance(small, tiny.Own)
    torch.testing.assert_close(small(SOURCE), load_generator(tiny.last(folder))(SOURCE))
    teacher = load_generator(tiny.last(folder), network="teacher.generator")
    assert torch.equal(teacher(SOURCE), whole(SOURCE))
    image = [SOURCE[:1]]
    assert 0.7 * 0.3 < count_macs(small, image) / count_macs(whole, image) <= 0.3
    return small


@pytest.mark.parametrize("missing", ["train", "leave_out"])
def test_a_generator_and_images_alone(
    missing: str, own: tuple[nn.Module, list[str]], tmp_path: Path, domains: list[str], cyclegan: Path
) -> None:
    whole, options = own
    sources = [f"--data.{name}=32" for name in ("load_size", "crop_size")]
    sources += [f"--data.{option}" for option in tiny.SIZES if "_size" in option or "workers" in option]
    sources = ["--data=FolderDataModule", f"{domains[1]}/trainA", *sources]
    args = tiny.compression(tmp_path / "run", tmp_path / "weights.pth")
    main([*args, *options, *tiny.pattern(6), f"--model.missing={missing}", *sources])
    path = tiny.last(tmp_path / "run")
    networks = tiny.read(path)["gancompress"]["networks"]
    assert ("student.discriminator" in networks) == (missing == "train")
    small = assert_small(tmp_path / "run", whole)

    main(["test", f"--ckpt_path={path}", f"--trainer.default_root_dir={tmp_path}"])
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    assert results["networks"]["student"]["macs_exact"] == count_macs(small, [SOURCE[:1]])
    assert results["teacher_l1"] > 0
    assert "l1" not in results["networks"]["student"]

    for source in (path, tmp_path / "run" / "generator.pth"):
        target = tmp_path / f"{source.stem}.pt2"
        main(["export", f"--ckpt_path={source}", "--format=torch", f"--output={target}"])
        exported = torch.export.load(target).module()
        torch.testing.assert_close(exported(SOURCE), small(SOURCE), atol=1e-5, rtol=0)


def test_a_generator_with_a_discriminator_of_ones_own(
    own: tuple[nn.Module, list[str]], tmp_path: Path, facades: list[str]
) -> None:
    whole, options = own
    judge = save(tiny.OwnJudge(10), tmp_path / "judge.pth")
    args = tiny.compression(tmp_path / "run", tmp_path / "weights.pth")
    args = [arg for arg in args if not arg.startswith("--model.teacher")]
    options += [f"--model.teacher.generator={tmp_path / 'weights.pth'}"]
    options += [f"--model.teacher.discriminator={tmp_path / 'judge.pth'}"]
    options += ["--model.discriminator=tiny.OwnJudge", "--model.discriminator.width=10"]
    main([*args, *options, *facades])
    assert_small(tmp_path / "run", whole)
    pair = torch.cat([SOURCE, SOURCE], 1)
    path = tiny.last(tmp_path / "run")
    assert torch.equal(load_generator(path, network="teacher.discriminator")(pair), judge(pair))
    small = load_generator(path, network="discriminator")
    assert isinstance(small, tiny.OwnJudge)
    assert count_macs(small, [pair[:1]]) <= 0.5 * count_macs(judge, [pair[:1]])


def test_both_directions_of_ones_own(tmp_path: Path, domains: list[str]) -> None:
    names = {"generator_AtoB": tiny.Own(12), "generator_BtoA": tiny.Own(12)}
    for role, network in names.items():
        save(network, tmp_path / f"{role}.pth")
    args = tiny.compression(tmp_path / "run", tmp_path, "UniformWidth", *tiny.cyclegan(), *tiny.pattern(3))
    args = [arg for arg in args if not arg.startswith("--model.teacher")]
    args += [f"--model.teacher.{role}={tmp_path / role}.pth" for role in names]
    main([*args, "--model.generator=tiny.Own", "--model.generator.width=12", *domains])
    macs = 0
    for role, whole in names.items():
        small = load_generator(tmp_path / "run" / f"{role}.pth")
        teacher = load_generator(tiny.last(tmp_path / "run"), network=f"teacher.{role}")
        assert torch.equal(teacher(SOURCE), whole(SOURCE))
        macs += count_macs(small, [SOURCE[:1]])
    assert macs <= 0.3 * 2 * count_macs(names["generator_AtoB"], [SOURCE[:1]])


def test_weights_of_another_network(
    own: tuple[nn.Module, list[str]], tmp_path: Path, facades: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = tiny.compression(tmp_path / "run", tmp_path / "weights.pth")
    options = ["--model.generator=tiny.Own", "--model.generator.width=9"]
    code, words = tiny.fail_code(capsys, [*args, *options, *facades])
    assert code == 2
    assert "error: model.teacher: " in words
    assert "head.weight is (12, 3, 3, 3) instead of (9, 3, 3, 3)" in words


def test_weights_without_their_class(
    own: tuple[nn.Module, list[str]], tmp_path: Path, facades: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = tiny.fail_code(
        capsys, [*tiny.compression(tmp_path / "run", tmp_path / "weights.pth"), *facades]
    )
    assert code == 2
    assert "error: model.teacher: " in words
    assert "generator.class_path" in words


def test_a_class_in_the_folder_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "of_mine.py").write_text(
        "from torch import nn\n\n\nclass Mine(nn.Conv2d):\n"
        "    def __init__(self):\n        super().__init__(3, 3, 5, padding=2)\n"
    )
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
    monkeypatch.chdir(tmp_path)
    main(["profile", "--model=CompressionModule", "--model.generator=of_mine.Mine", "--size=32"])
    assert f"{3 * 3 * 25 * 32 * 32:,}" in capsys.readouterr().out
