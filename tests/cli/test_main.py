import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import tiny
import torch

from lightning_gancompress import __version__
from lightning_gancompress.cli import main
from lightning_gancompress.cli.command_line import GanCompressCLI
from lightning_gancompress.errors import UserError
from lightning_gancompress.shipped_configs import configs_folder, find_config

SHIPPED = sorted(path.name for path in configs_folder().glob("*.yaml"))
PARTS = (
    "log_",
    "policy",
    "switch",
    "finetune",
    "evaluate",
    "compare",
    "defaults",
)  # not to be fitted by themselves


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


def test_a_command_whose_reader_is_gone_ends_without_a_word():
    program = [sys.executable, "-m", "lightning_gancompress", "data", "download"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


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
        ("- 1\n", ["bad.yaml: holds no settings"]),
        ("", ["bad.yaml: holds no settings"]),
        (
            GOOD + "trainer:\n  max_epochs: 1\ntrainer:\n  precision: bf16-mixed\n",
            ["trainer", "line 8", "line 10"],
        ),
        (GOOD.replace("n_downs: 5", "ngf: 8, ngf: 16"), ["bad.yaml", "ngf", "line 5"]),
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
    told = f"{path} is no text: give a YAML file with keys such as model, data or trainer."
    assert told in fails(capsys, "fit", "--config", str(path))
    compared = ["compare", f"--output={tmp_path / 'all'}", f"--experiments={{a: [{path}]}}"]
    assert told in fails(capsys, *compared)
    path.write_text("a: [")
    assert f"{path} can't be read (while parsing" in fails(capsys, *compared)
    path.write_bytes(b"\xff\xfe\x00")
    for option in ("model", "trainer"):  # which jsonargparse reads
        line = fails(capsys, "fit", f"--{option}={path}")
        assert "the file that is named there is no text: give a YAML file. See `gancompress fit" in line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fit"], ["needs model and data", "quickstart.yaml"]),
        (["fit", "--foo=3"], ["--foo"]),
        (["fitt"], ["fitt", "profile"]),
        ([], ["`gancompress` needs a command: fit, ", " or profile. See `gancompress --help`."]),
        (["test", "--ckpt_path"], ["--ckpt_path"]),
        (["test", "--ckpt_path=none.ckpt"], ["none.ckpt"]),
        (["test", "--config=teacher_quickstart.yaml", "--ckpt_path=best"], ["teacher/checkpoints/best.ckpt"]),
        (["test", "--config=teacher_quickstart.yaml"], ["--ckpt_path", "last.ckpt"]),
        (["test", "--config=teacher_quickstart.yaml", "--ckpt_path=last"], ["teacher/checkpoints/last.ckpt"]),
        (["export"], ["`gancompress export` needs --ckpt_path. See `gancompress export --help`."]),
        (["predict", "--model=x.pth"], ["`gancompress predict` needs --input. See `gancompress predict "]),
        (["push"], ["`gancompress push` needs --source and --repo. See"]),
        (["data", "pair", "x"], ["`gancompress data pair` needs B and OUTPUT. See `gancompress data pair "]),
        (["data"], ["`gancompress data` needs a command: check, pair or download. See `gancompress data "]),
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


def test_a_list_that_is_appended_to_again_is_that_of_the_first_run(tmp_path, facades):
    """The same command line, to go on: what the checkpoint records must not come twice."""
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/l1"]
    args = [*tiny.teacher(tmp_path), *facades, "--trainer.max_epochs=1"]
    args.remove("--trainer.callbacks=ImageGrid")
    last = "{class_path: LastCheckpoint, init_args: {minutes: 5}}"
    logger = f"{{class_path: CSVLogger, init_args: {{save_dir: {tmp_path}}}}}"
    (tmp_path / "more.yaml").write_text(f"trainer: {{callbacks+: [{last}], logger+: {logger}}}\n")
    args.remove("--trainer.logger=false")
    args += ["--config", str(tmp_path / "more.yaml"), *stop]
    main(args)
    first = tiny.read(tiny.last(tmp_path))["run_config"]["trainer"]
    assert [c["class_path"].rpartition(".")[2] for c in first["callbacks"]] == [
        "LastCheckpoint",
        "EarlyStopping",
    ]
    main(
        [
            *args,
            "--trainer.callbacks.patience=7",
            "--trainer.max_epochs=2",
            "--ckpt_path",
            str(tiny.last(tmp_path)),
        ]
    )
    second = tiny.read(tiny.last(tmp_path))["run_config"]["trainer"]
    assert first["callbacks"][1]["init_args"].pop("patience") == 3
    assert second["callbacks"][1]["init_args"].pop("patience") == 7
    for key in ("callbacks", "logger"):
        assert second[key] == first[key]


@pytest.fixture
def lists(tmp_path, unet):
    """A checkpoint that records lists."""
    content = tiny.read(unet)
    monitors = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"monitor": name}}
        for name in ("val/l1", "val/psnr")
    ]
    content["run_config"]["trainer"]["callbacks"] = monitors
    torch.save(content, tmp_path / "lists.ckpt")
    return tmp_path / "lists.ckpt"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["val/l1", "val/psnr"]),
        (["+=ModelCheckpoint", ".monitor=val/l1"], ["val/l1", "val/psnr"]),
        (["+=ModelCheckpoint", ".monitor=val/ssim"], ["val/l1", "val/psnr", "val/ssim"]),
        (["+=LastCheckpoint"], ["val/l1", "val/psnr", None]),
        (["=ModelCheckpoint", ".monitor=val/l1"], ["val/l1"]),
        (["=LastCheckpoint", "+=ModelCheckpoint", ".monitor=val/l1"], [None, "val/l1"]),
    ],
)
def test_what_is_not_recorded_is_appended(options, expected, lists, capsys, monkeypatch):
    monkeypatch.setattr(GanCompressCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(GanCompressCLI, "run_command", lambda self, command: None)
    cli = GanCompressCLI(["test", "--ckpt_path", str(lists), *(f"--trainer.callbacks{o}" for o in options)])
    found = [callback.init_args.get("monitor") for callback in cli.config.test.trainer.callbacks]
    assert found == expected


@pytest.mark.parametrize("flag", ["--ckpt", "--ck", "-c", "--config", "--conf"])
def test_a_checkpoint_is_known_however_it_is_named(flag, unet, tmp_path, monkeypatch):
    """Shortened, or in a configuration."""
    monkeypatch.setattr(GanCompressCLI, "run_command", lambda self, command: None)
    value = str(unet)
    if flag not in ("--ckpt", "--ck"):
        value = str(tmp_path / "test.yaml")
        Path(value).write_text(f"ckpt_path: {unet}\ntrainer: {{default_root_dir: {tmp_path}}}\n")
    for args in (
        ["test", flag, value],
        ["test", f"{flag}={value}"] if flag != "-c" else ["test", f"-c{value}"],
    ):
        config = GanCompressCLI(args).config.test
        assert config.ckpt_path == str(unet)
        assert config.model.class_path.endswith("TeacherModule")
    Path(tmp_path / "other.yaml").write_text("ckpt_path: null\n")
    with pytest.raises(UserError, match="needs model and data"):
        GanCompressCLI(["test", flag, value, "--config", str(tmp_path / "other.yaml")])


def test_a_configuration_before_the_command_outdoes_the_checkpoint(unet, tmp_path, monkeypatch):
    monkeypatch.setattr(GanCompressCLI, "run_command", lambda self, command: None)
    path = tmp_path / "all.yaml"
    path.write_text(f"test: {{ckpt_path: {unet}, trainer: {{default_root_dir: {tmp_path}/there}}}}\n")
    config = GanCompressCLI(["--config", str(path), "test"]).config.test
    assert config.model.class_path.endswith("TeacherModule")
    assert config.trainer.default_root_dir == f"{tmp_path}/there"


def test_plain_lists_are_appended_to_once(unet, tmp_path, monkeypatch):
    monkeypatch.setattr(GanCompressCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(GanCompressCLI, "run_command", lambda self, command: None)
    content = tiny.read(unet)
    content["run_config"]["model"] = {
        "class_path": "lightning_gancompress.modules.CompressionModule",
        "init_args": {"ignored_layers": ["a", "b"]},
    }
    torch.save(content, tmp_path / "x.ckpt")
    for option in ("--model.ignored_layers+=[b, c]", "--model.init_args.ignored_layers+=c"):
        config = GanCompressCLI(["test", "--ckpt_path", str(tmp_path / "x.ckpt"), option]).config.test
        assert config.model.init_args.ignored_layers == ["a", "b", "c"]


def test_the_settings_of_a_resumed_run_start_afresh(unet, tmp_path):
    main(
        [
            "fit",
            "--ckpt_path",
            str(unet),
            "--trainer.default_root_dir",
            str(tmp_path / "a"),
            "--model.epochs=2",
        ]
    )
    main(
        [
            "fit",
            *("--config", str(tmp_path / "a" / "config.yaml")),
            *("--trainer.default_root_dir", str(tmp_path / "b"), "--trainer.max_epochs=1"),
        ]
    )
    assert tiny.read(tiny.last(tmp_path / "a"))["epoch"] == 2
    assert tiny.read(tiny.last(tmp_path / "b"))["epoch"] == 0


# -- where output goes -----------------------------------------------------------------------------------


def test_a_moved_run_writes_where_its_checkpoint_lies(tmp_path, facades, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = Path("runs/a")
    csv = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={root}/csv"]
    main([*tiny.teacher(root), *facades, "--trainer.max_epochs=1", *csv])
    shutil.copytree(root, "runs/b")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    main(["test", "--ckpt_path", "runs/b/checkpoints/last.ckpt"])
    main(["fit", "--ckpt_path", str(tmp_path / "runs/b/checkpoints/last.ckpt")])
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert Path("runs/b/test/results.json").is_file()
    assert tiny.read(Path("runs/b/checkpoints/last.ckpt"))["epoch"] == 1
    settings = tiny.read(Path("runs/b/checkpoints/last.ckpt"))["run_config"]["trainer"]
    assert settings["default_root_dir"] == "runs/b"
    assert settings["logger"]["init_args"]["save_dir"] == "runs/b/csv"
    assert not Path("runs/b/previous-1").exists()
    shutil.copy(root / "config.yaml", "runs/b/config.yaml")  # says runs/a
    shutil.rmtree("runs/b/test")
    main(["test", "--config", "runs/b/config.yaml", "--ckpt_path", "runs/b/checkpoints/last.ckpt"])
    assert Path("runs/b/test/results.json").is_file()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    main(["validate", "--ckpt_path", "runs/b/checkpoints/last.ckpt", "--trainer.default_root_dir=runs/c"])
    assert Path("runs/c/validate/grid.png").is_file()


def test_paths_may_name_the_home_folder_and_variables(tmp_path, unet, facades, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copy(unet, tmp_path / "unet.ckpt")
    Path("own.yaml").write_text(
        f"data: {{class_path: SyntheticFacades, init_args: {{root: {facades[1][12:]}}}}}"
    )
    args = [*tiny.compression(Path("~/run"), Path("$SCRATCH/unet.ckpt"), "UniformWidth"), *facades]
    callbacks = ["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.dirpath=$SCRATCH/kept"]
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=~/csv"]
    args.remove("--trainer.logger=false")
    main([*args, *callbacks, *logger, "--trainer.max_epochs=1", "--config=$SCRATCH/own.yaml"])
    main(["test", "--ckpt_path=$SCRATCH/kept/last.ckpt", "--data.root=~/facades"])
    main(["export", "--ckpt_path=~/run/generator.pth", "--output=${SCRATCH}/small.pt2", "--format=torch"])
    main(["profile", "--ckpt_path=~/run/generator.pth", "--json=$SCRATCH/cost.json"])
    made = {"run", "kept", "csv", "facades", "small.pt2", "cost.json", "own.yaml", "unet.ckpt"}
    assert {path.name for path in tmp_path.iterdir()} == made
    assert {"generator.pth", "test", "report.html"} <= {path.name for path in Path("run").iterdir()}
    assert "NOPE is not set" in fails(capsys, "test", "--ckpt_path=$NOPE/last.ckpt")


def test_another_kind_of_module_is_refused(unet, tmp_path, facades, capsys):
    line = fails(capsys, *tiny.compression(tmp_path, unet), *facades, "--ckpt_path", str(unet))
    assert "TeacherModule" in line
    assert "CompressionModule" in line


def test_a_small_model_does_not_resume(tmp_path, facades, capsys):
    torch.save({"weight": torch.ones(1)}, tmp_path / "small.pth")
    ckpt = ["--ckpt_path", str(tmp_path / "small.pth")]
    assert "no training checkpoint" in fails(capsys, *tiny.teacher(tmp_path), *facades, *ckpt)


def test_the_command_that_is_named_alone_gets_options(monkeypatch, capsys):
    made = []
    add = GanCompressCLI.add_core_arguments_to_parser
    monkeypatch.setattr(
        GanCompressCLI, "add_core_arguments_to_parser", lambda cli, parser: made.append(add(cli, parser))
    )
    for args, expected in ((["export", "--help"], 0), (["fit", "--help"], 1), (["--help"], 5)):
        made.clear()
        with pytest.raises(SystemExit):
            main(args)
        assert len(made) == expected, args
    assert "compare" in capsys.readouterr().out
