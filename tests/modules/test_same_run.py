"""What a resumed run can't change is refused in a sentence; what still acts is let pass."""

from __future__ import annotations

import copy
import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
import torch
from lightning.pytorch import Callback, seed_everything

from lightning_gancompress.callbacks import CollaborativePruning
from lightning_gancompress.checkpoints import load_network
from lightning_gancompress.cli import main
from lightning_gancompress.data import SyntheticFacades
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.networks.init import renew
from lightning_gancompress.trainer import Trainer


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, facades: list[str], unet: Path) -> dict[str, Path]:
    """Folders of compressions that were stopped in an epoch of the search, and in one of the fine-tuning."""
    folders = {}
    for phase, batches in (("search", 2), ("finetune", 10)):
        folder = folders[phase] = tmp_path_factory.mktemp(phase)
        shutil.copy(unet, folder / "teacher.ckpt")
        main([*tiny.compression(folder, folder / "teacher.ckpt"), *facades, f"--trainer.max_steps={batches}"])
    return folders


TOO_LATE = {
    "seed": (["--seed_everything=1"], "seed_everything: 1 comes too late, .* began with 0"),
    "preprocess": (["--data.preprocess=crop"], "data.preprocess: crop comes too late, .* began with resize"),
    "load": (["--data.load_size=40"], "data.load_size: 40 comes too late"),
    "direction": (["--data.direction=AtoB"], "data.direction: AtoB comes too late, .* began with BtoA"),
    "labels": (["--data.labels.encoding=colors"], "data.labels: .*colors.* comes too late, .* with None"),
    "channels": (["--data.in_channels=1"], "data.in_channels: 1 comes too late"),
    "ignored": (["--model.ignored_layers=[model.model.0]"], "model.ignored_layers: .* comes too late"),
    "norm": (["--model.batch_norm=image"], "model.batch_norm: image comes too late, .* began with running"),
}


@pytest.mark.parametrize("phase", ["search", "finetune"])
@pytest.mark.parametrize("change", TOO_LATE)
def test_what_a_compression_began_with_stays(
    change: str,
    phase: str,
    begun: dict[str, Path],
    facades: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options, words = TOO_LATE[change]
    folder = begun[phase]
    args = [*tiny.compression(folder, folder / "teacher.ckpt"), *facades, *options]
    before = tiny.last(folder).read_bytes()
    for checkpoint in ("last", str(tiny.last(folder))):
        code, found = tiny.fail_code(capsys, [*args, f"--ckpt_path={checkpoint}"])
        assert (code, bool(re.search(words, found))) == (2, True), found
    assert tiny.last(folder).read_bytes() == before


def test_options_of_the_search_act_until_the_border(
    begun: dict[str, Path], facades: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for phase in ("search", "finetune"):
        shutil.copytree(begun[phase], tmp_path / phase)
        args = [*tiny.compression(tmp_path / phase, tmp_path / "gone.ckpt"), *facades, "--ckpt_path=last"]
        args += ["--trainer.callbacks.cache_dir=" + str(tmp_path / "elsewhere"), "--trainer.max_epochs=3"]
        changed = [*args, "--trainer.callbacks.temperature=0.8"]
        if phase == "finetune":
            code, words = tiny.fail_code(capsys, changed)
            assert (code, "trainer.callbacks.temperature: 0.8 comes too late" in words) == (2, True), words
        main(args if phase == "finetune" else changed)


@pytest.mark.parametrize("phase", ["search", "finetune"])
def test_another_teacher_comes_too_late(
    phase: str,
    begun: dict[str, Path],
    facades: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder, other = begun[phase], tmp_path / "other.ckpt"
    content = tiny.read(folder / "teacher.ckpt")
    key = next(key for key in content["state_dict"] if key.startswith("networks.discriminator"))
    content["state_dict"][key] += 1
    torch.save(content, other)
    args = [*tiny.compression(folder, other), *facades, f"--ckpt_path={tiny.last(folder)}"]
    for options in ([], ["--model.teacher=~/other.ckpt"]):
        code, words = tiny.fail_code(capsys, [*args, *options])
        assert code == 2
        assert "model.teacher: the discriminator is not the one that" in words
    shutil.copytree(folder, tmp_path / "copy")
    shutil.copy(folder / "teacher.ckpt", other)
    rest = [*facades, "--ckpt_path=last", "--trainer.max_epochs=3"]
    main([*tiny.compression(tmp_path / "copy", other), *rest])  # the same under another name
    main([*tiny.compression(tmp_path / "copy", tmp_path / "gone.ckpt"), *rest])
    main([*tiny.compression(tmp_path / "copy", tmp_path), *rest[:-1], "--model.teacher=null"])


def test_lengths_that_are_over_come_too_late(
    begun: dict[str, Path], facades: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(begun["search"], tmp_path / "run")
    args = [*tiny.compression(tmp_path / "run", tmp_path / "gone.ckpt"), *facades, "--ckpt_path=last"]
    main([*args, "--trainer.max_epochs=1"])
    code, words = tiny.fail_code(capsys, [*args, "--trainer.callbacks.search_epochs=1"])
    assert (code, "search_epochs: 1 comes too late" in words) == (2, True), words
    assert "set it to 2 or more" in words
    main([*args, "--trainer.callbacks.search_epochs=3", "--trainer.max_epochs=4"])
    assert tiny.read(tiny.last(tmp_path / "run"))["gancompress"]["began"] == 3
    rest = [*args, "--trainer.callbacks.search_epochs=3"]
    code, words = tiny.fail_code(capsys, [*rest, "--model.epochs=0", "--model.decay_epochs=0"])
    assert (code, "model.epochs: a run of 3 epochs comes too late" in words) == (2, True), words
    main([*rest, "--model.epochs=0", "--model.decay_epochs=1"])  # all is done
    main([*rest, "--model.lr=0.001", "--model.distill_weight=5", "--model.epochs=2"])  # both act from now on
    assert tiny.read(tiny.last(tmp_path / "run"))["epoch"] == 5


def test_other_images_come_too_late_in_the_search(
    begun: dict[str, Path], facades: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for phase in ("search", "finetune"):
        shutil.copytree(begun[phase], tmp_path / phase)
        args = [*tiny.compression(tmp_path / phase, tmp_path / "gone.ckpt"), *tiny.data(tmp_path / "data")]
        args += ["--ckpt_path=last", "--trainer.max_epochs=3"]
        main(args)  # the same images at another place
    for phase, size in (("search", "search_batch_size"), ("finetune", "batch_size")):
        shutil.rmtree(tmp_path / phase)
        shutil.copytree(begun[phase], tmp_path / phase)
        args = [*tiny.compression(tmp_path / phase, tmp_path / "gone.ckpt"), *facades, "--ckpt_path=last"]
        if phase == "search":
            code, words = tiny.fail_code(capsys, [*args, "--data.max_train=24"])
            assert (code, "data.root: the training images are not those" in words) == (2, True), words
        else:
            with pytest.warns(UserWarning, match=r"was trained with other images"):
                main([*args, "--data.max_train=24", "--trainer.max_epochs=3"])
            shutil.rmtree(tmp_path / phase)
            shutil.copytree(begun[phase], tmp_path / phase)
        counted = rf"data.{size} was 8 when this epoch began and is now 4"
        rounded = r"trainer.precision was 32-true in .*last.ckpt and is now bf16-mixed: the run goes on"
        with pytest.warns(UserWarning, match=counted), pytest.warns(UserWarning, match=rounded):
            main([*args, f"--data.{size}=4", "--trainer.max_epochs=3", "--trainer.precision=bf16-mixed"])


class Orders(Callback):
    """Note which images each batch holds."""

    seen: ClassVar[list[list[int]]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch["index"].tolist())


def test_the_order_of_the_images_follows_the_seed_of_the_run(
    facades: list[str], unet: Path, tmp_path: Path
) -> None:
    def order(folder: Path, *options: str, seed: int = 1) -> list[list[int]]:
        Orders.seen.clear()
        args = [*tiny.compression(folder, unet, "UniformWidth"), f"--trainer.callbacks+={__name__}.Orders"]
        main([*args, *facades, f"--seed_everything={seed}", *options])
        return [*Orders.seen]

    def header() -> dict[str, Any]:
        content: dict[str, Any] = tiny.read(tiny.last(stopped))["gancompress"]
        return content

    zero, one = order(tmp_path / "zero", seed=0), order(tmp_path / "one")
    assert len(zero) == len(one) == 8
    assert zero != one
    assert order(tmp_path / "given", "--data.seed=0") == zero

    stopped, resume = tmp_path / "stopped", "--ckpt_path=last"
    assert order(stopped, "--trainer.max_steps=2") == one[:2]
    assert header()["data_seed"] == 1
    assert order(stopped, resume, "--trainer.max_steps=3") == one[2:3]
    with pytest.warns(UserWarning, match=r"data.seed was 1 in .*last.ckpt and is now 0: the images come in"):
        assert order(stopped, resume, "--data.seed=0", "--trainer.max_steps=5") == zero[3:5]
    assert order(stopped, resume, "--trainer.max_steps=6") == zero[5:6]

    content = tiny.read(tiny.last(stopped))
    del content["gancompress"]["data_seed"]  # as releases wrote it whose order did not follow
    torch.save(content, tiny.last(stopped))
    assert order(stopped, resume) == zero[6:]


def test_missing_networks_are_made_at_the_border(
    tmp_path: Path, facades: list[str], unet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(load_network(unet, "generator")[0].state_dict(), tmp_path / "latest_net_G.pth")
    for was, now in (("train", "leave_out"), ("leave_out", "train")):
        args = tiny.compression(
            tmp_path / was, tmp_path / "latest_net_G.pth", "UniformWidth", *tiny.pattern(6)
        )
        main([*args, *facades, f"--model.missing={was}", "--trainer.max_epochs=1"])
        changed = [*args, *facades, f"--model.missing={now}", "--ckpt_path=last"]
        code, words = tiny.fail_code(capsys, changed)
        assert (code, f"model.missing: {now} comes too late" in words) == (2, True), words
        main([*args, *facades, f"--model.missing={was}", "--ckpt_path=last"])


def test_a_second_fit_is_a_fine_tuning_of_its_own(tmp_path: Path, facades: list[str], unet: Path) -> None:
    seed_everything(0, verbose=False)
    module = CompressionModule(str(unet), budget=0.3, epochs=1, decay_epochs=1)
    policy = CollaborativePruning(2, lr=0.05, cache_dir=str(tmp_path / "neighbours"))
    factors = []

    class Watch(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            factors.append((module.phase.name, module.phase.lr_factor(trainer.current_epoch)))

    def train(folder: str, checkpoint: str | None = None, **options: Any) -> None:
        data = SyntheticFacades(
            root=facades[1].partition("=")[2],
            **{name: int(value) for name, value in (option.split("=") for option in tiny.SIZES)},
        )
        quiet = {"accelerator": "cpu", "logger": False, "callbacks": [policy, Watch()]}
        trainer = Trainer(default_root_dir=tmp_path / folder, **quiet, **options)
        trainer.fit(module, data, ckpt_path=checkpoint)

    train("first")
    searched = [("search", 1.0), ("search", 1.0), ("finetune", 1.0), ("finetune", 0.5)]
    assert factors == searched
    factors.clear()
    train("again", max_epochs=1)
    train("again", "last")
    assert factors == searched[2:]
    assert tiny.read(tiny.last(tmp_path / "again"))["epoch"] == 1
    assert tiny.read(tiny.last(tmp_path / "again"))["gancompress"]["began"] == 0


def test_a_second_fit_has_the_seed_it_is_given(tmp_path: Path, facades: list[str], unet: Path) -> None:
    module = CompressionModule(
        str(unet), budget=0.3, epochs=1, decay_epochs=0, student_weights="fresh", lr=1e-30
    )
    policy = CollaborativePruning(2, lr=0.05, cache_dir=str(tmp_path / "neighbours"))
    data = SyntheticFacades(
        root=facades[1].partition("=")[2],
        **{name: int(value) for name, value in (option.split("=") for option in tiny.SIZES)},
    )
    given = dataclasses.replace(data, seed=5)
    for seed, epochs, own in ((1, 1, data), (9, -1, data), (3, 1, given)):
        seed_everything(seed, verbose=False)
        quiet = {"accelerator": "cpu", "logger": False, "callbacks": [policy], "max_epochs": epochs}
        Trainer(default_root_dir=tmp_path, **quiet).fit(module, own)
        assert own.seed == (5 if own is given else seed)
        assert own.facades.seed == (5 if own is given else 0)  # the pictures stay those of their seed
    fresh = copy.deepcopy(module.student)
    renew(fresh["generator"], seed=9)
    small, new = (nets["generator"].get_submodule("model.model.0") for nets in (module.student, fresh))
    assert torch.equal(small.weight, new.weight)
    other = dataclasses.replace(data)
    assert other.facades.seed == 0
    other.follow(2**40 + 7)
    assert other.seed == 7  # 32 bits, as the option has
    data.seed = 4
    data.follow(8)
    assert data.seed == 4


@pytest.mark.parametrize("option", ["direction=AtoB", "labels.encoding=colors"])
def test_inputs_that_the_networks_have_not_learned_are_told(
    option: str, begun: dict[str, Path], unet: Path, facades: list[str], tmp_path: Path
) -> None:
    name = "data." + option.partition("=")[0].partition(".")[0]
    run = [f"--trainer.default_root_dir={tmp_path}", *tiny.QUICK, *facades]
    tests = [[*run, f"--ckpt_path={path}"] for path in (unet, tiny.last(begun["finetune"]))]
    fit = [*tiny.compression(tmp_path / "new", unet, "UniformWidth"), "--trainer.max_steps=1", *facades]
    for args in (["test", *tests[0]], ["test", *tests[1]], fit):
        with pytest.warns(UserWarning, match=rf"{name} is .*, and the networks of .* were trained with"):
            main([*args, f"--data.{option}"])


def test_another_encoding_of_labels_comes_too_late_for_a_teacher(
    unet: Path, facades: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*tiny.teacher(tmp_path), *facades, f"--ckpt_path={unet}", "--data.labels.encoding=colors"]
    code, words = tiny.fail_code(capsys, args)
    assert (code, bool(re.search("data.labels: .*colors.* comes too late", words))) == (2, True), words
