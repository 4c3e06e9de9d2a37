import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import tiny
import torch

from lightning_gancompress import __version__
from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.shipped_configs import configs_folder, find_config

SHIPPED = sorted(path.name for path in configs_folder().glob("*.yaml"))
PARTS = ("policy", "switch", "finetune", "evaluate", "compare", "defaults")  # not to be fitted by themselves


def fails(capsys, *args):
    """The one line that a command leaves on standard error."""
    capsys.readouterr()
    code, text = tiny.fail_code(capsys, list(args))
    assert code == 2
    *_, line = text.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in text
    return line


# -- as a program ----------------------------------------------------------------------------------------


def test_module_and_version():
    command = [sys.executable, "-m", "lightning_gancompress", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["gancompress", __version__]


def test_help_lists_all_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", "export", "profile"):
        assert f"\n    {command} " in text


def test_help_of_fit_shows_every_argument_of_lightnings_trainer(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = capsys.readouterr().out
    for option in (
        "trainer.default_root_dir",
        "trainer.precision",
        "trainer.limit_train_batches",
        "ckpt_path",
    ):
        assert f"\n  --{option} " in text
    assert "PairedDataModule" in text


def test_help_of_export_is_short(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "--trainer" not in capsys.readouterr().out


# -- configurations --------------------------------------------------------------------------------------


def test_the_working_directory_comes_before_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(SHIPPED[0]) == configs_folder() / SHIPPED[0]
    Path(SHIPPED[0]).write_text("model: null\n")
    assert find_config(SHIPPED[0]) == Path(SHIPPED[0])


def test_a_missing_configuration_lists_the_shipped_ones(capsys):
    line = fails(capsys, "fit", "--config", "nope.yaml")
    assert "nope.yaml" in line
    assert all(name in line for name in SHIPPED if name != "defaults.yaml")


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith(PARTS)])
def test_shipped_configurations_are_accepted(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", name, "--print_config"])
    assert stop.value.code == 0
    assert "class_path: lightning_gancompress.modules" in capsys.readouterr().out


# -- what a user can mend --------------------------------------------------------------------------------

GOOD = """
model:
  class_path: TeacherModule
  init_args:
    generator: {class_path: UnetGenerator, init_args: {n_downs: 5}}
    discriminator: {class_path: PatchDiscriminator}
data: {class_path: SyntheticFacades, init_args: {root: facades, size: 32}}
"""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (GOOD + "modl: 3\n", ["modl"]),
        (GOOD.replace("init_args:\n", "init_args:\n    learning_rate: 3\n"), ["bad.yaml", "learning_rate"]),
        (GOOD.replace("n_downs: 5", "downs: 5"), ["bad.yaml", "model.generator", "downs"]),
        (GOOD.replace("n_downs: 5", "n_downs: five"), ["bad.yaml", "model.generator.n_downs", "int", "five"]),
        (GOOD.replace("n_downs: 5", "norm: layer"), ["model.generator.norm", "instance", "batch", "layer"]),
        (GOOD.replace("TeacherModule", "TeacherModul"), ["bad.yaml", "TeacherModul"]),
        (GOOD + "trainer: {precision: bf17}\n", ["trainer.precision", "bf16-mixed", "bf17"]),
        (GOOD + "trainer: {callbacks: [{class_path: LastCheckpoint, init_args: {hours: 1}}]}", ["hours"]),
        ("model: [\n a: b\n", ["bad.yaml", "line 3"]),
        ("- 1\n", ["bad.yaml"]),
        ("", ["bad.yaml"]),
        (GOOD.split("data:")[0], ["`fit` needs data"]),
        (GOOD.replace("size: 32", "size: 8"), ["size of SyntheticFacades is 8"]),  # from a constructor
        (
            GOOD + "trainer: {gradient_clip_val: 1.0, default_root_dir: runs}",
            ["gradient_clip_val"],
        ),  # Lightning's
    ],
)
def test_a_wrong_configuration_is_named(config, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(config)
    line = fails(capsys, "fit", "--config", "bad.yaml")
    for word in words:
        assert word in line


def test_a_binary_configuration_is_named(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert str(path) in fails(capsys, "fit", "--config", str(path))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fit"], ["needs model and data", "quickstart.yaml"]),
        (["fit", "--foo=3"], ["--foo"]),
        (["fitt"], ["fitt", "profile"]),
        ([], ["fit"]),
        (["test", "--ckpt_path"], ["--ckpt_path"]),
        (["test", "--ckpt_path=none.ckpt"], ["none.ckpt"]),
        (["test", "--config=teacher_quickstart.yaml", "--ckpt_path=best"], ["teacher/checkpoints/best.ckpt"]),
        (["test", "--config=teacher_quickstart.yaml"], ["--ckpt_path", "last.ckpt"]),
        (["test", "--config=teacher_quickstart.yaml", "--ckpt_path=last"], ["teacher/checkpoints/last.ckpt"]),
        (["export"], ["ckpt_path"]),
        (["export", "--ckpt_path=none.pth"], ["none.pth"]),
        (["export", "--ckpt_path=x", "--format=tf"], ["format", "onnx", "tf"]),
        (["profile"], ["--config", "--ckpt_path"]),
    ],
)
def test_wrong_arguments_are_named(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = fails(capsys, *args)
    for word in words:
        assert word in line


def test_errors_come_as_they_are_when_asked_for(monkeypatch):
    monkeypatch.setenv("GANCOMPRESS_TRACEBACK", "1")
    with pytest.raises(UserError, match=r"nope\.yaml"):
        main(["fit", "--config", "nope.yaml"])


def test_an_unwritable_run_folder_is_named_before_training(tmp_path, facades, capsys):
    (tmp_path / "file").touch()
    line = fails(capsys, *tiny.teacher(tmp_path / "file" / "run"), *facades)
    assert str(tmp_path / "file" / "run") in line


# -- checkpoints know their settings ---------------------------------------------------------------------


def test_a_checkpoint_alone_is_enough(unet, tmp_path):
    main(["test", "--ckpt_path", str(unet), "--trainer.default_root_dir", str(tmp_path)])
    assert (tmp_path / "test" / "results.json").is_file()


def test_what_the_user_writes_outdoes_the_checkpoint_and_is_told(unet, tmp_path, capsys):
    new = ["--trainer.default_root_dir", str(tmp_path), "--model.epochs=2"]
    with pytest.warns(UserWarning, match=r"model\.init_args\.epochs was 1 in .*last\.ckpt and is now 2"):
        main(["fit", "--ckpt_path", str(unet), *new])
    assert tiny.read(tiny.last(tmp_path))["epoch"] == 2  # the third
    settings = tiny.read(tiny.last(tmp_path))["run_config"]
    assert settings["model"]["init_args"]["epochs"] == 2
    assert settings["model"]["init_args"]["generator"]["init_args"]["ngf"] == 8  # the checkpoint's


def test_the_same_settings_are_no_news(unet, tmp_path, facades):
    args = tiny.teacher(tmp_path)[1:]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".* and is now ")
        main(["validate", *args, *facades, "--ckpt_path", str(unet)])


def test_the_checkpoint_says_nothing_of_the_machine(unet, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path", str(unet), "--print_config"])
    text = capsys.readouterr().out
    assert tiny.read(unet)["run_config"]["trainer"]["accelerator"] == "cpu"
    assert "accelerator: auto" in text
    assert f"root: {tiny.read(unet)['run_config']['data']['init_args']['root']}" in text


def test_another_kind_of_module_is_refused(unet, tmp_path, facades, capsys):
    line = fails(capsys, *tiny.compression(tmp_path, unet), *facades, "--ckpt_path", str(unet))
    assert "TeacherModule" in line
    assert "CompressionModule" in line


def test_a_small_model_does_not_resume(tmp_path, facades, capsys):
    torch.save({"weight": torch.ones(1)}, tmp_path / "small.pth")
    ckpt = ["--ckpt_path", str(tmp_path / "small.pth")]
    assert "no training checkpoint" in fails(capsys, *tiny.teacher(tmp_path), *facades, *ckpt)
