"""What comes out of a file is data: it imports and runs nothing that the user did not name."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints import load_networks, save_small
from lightning_gancompress.cli import main
from lightning_gancompress.modules import CompressionModule, TeacherModule
from lightning_gancompress.networks import NetworkSpec, UnetGenerator

OLD = Path(__file__).parent / "checkpoints" / "old"
CANARY = """
from pathlib import Path
from torch import nn
from lightning_gancompress.data import SyntheticFacades
Path("it_ran").touch()
def run(*args, **kwargs):
    Path("it_ran").touch()
class Data(SyntheticFacades):
    pass
class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, width, 1)
    def forward(self, x):
        return self.layer(x)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of the command, with a module that tells when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("lightning_gancompress.trust._passed", {})
    Path("canary.py").write_text(CANARY)
    Path("canary.yaml").write_text("class_path: canary.Net\n")
    yield tmp_path
    sys.modules.pop("canary", None)


def hostile(change: dict[str, Any], file: str = "teacher") -> str:
    """A checkpoint whose settings have other values at dotted places."""
    content = tiny.read(OLD / f"{file}.ckpt")
    for place, value in change.items():
        where: Any = content
        *path, last = place.split(".")
        for part in path:
            where = where[part]
        where[last] = value
    Path("e.ckpt").unlink(missing_ok=True)
    torch.save(content, "e.ckpt")
    return "e.ckpt"


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The sentence with which a command refuses, having imported nothing."""
    code, words = tiny.fail_code(capsys, list(args))
    assert code == 2
    assert len(words.strip().splitlines()) == 1
    assert "canary" not in sys.modules
    assert not Path("it_ran").exists()
    return words


def data_set(**arguments: Any) -> dict[str, Any]:
    kind = {"class_path": "torchvision.datasets.DatasetFolder", "init_args": {"root": ".", **arguments}}
    return {"class_path": "lightning_gancompress.data.DatasetDataModule", "init_args": {"train": kind}}


def logger(kind: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": {"save_dir": "logs", **arguments}}


SETTINGS: dict[str, tuple[str, Any, str]] = {
    "data": ("data.class_path", "canary.Data", "canary.Data"),
    "a plain path": ("data", "canary.Data", "canary.Data"),
    "a configuration by its name": ("data", "canary.yaml", "canary.yaml"),
    "a network": ("model.init_args.generator.class_path", "canary.Net", "canary.Net"),
    "a network by a plain path": ("model.init_args.generator", "canary.Net", "canary.Net"),
    "a network in a configuration": ("model.init_args.generator", "canary.yaml", "canary.yaml"),
    "a network in a text of YAML": ("model.init_args.generator", "{class_path: canary.Net}", "canary.Net"),
    "a function": ("model.init_args.generator.class_path", "canary.run", "canary.run"),
    "a process": ("model.class_path", "subprocess.Popen", "subprocess.Popen"),
    "what a module of ours imports": (
        "model.class_path",
        "lightning_gancompress.cli.entry.Path",
        "entry.Path",
    ),
    "a data set": ("data", data_set(loader="canary.run", extensions=["ckpt"]), "DatasetFolder"),
    "a callback": ("trainer.callbacks", [{"class_path": "canary.Net"}], "canary.Net"),
    "a callback by a plain path": ("trainer.callbacks", ["canary.Net"], "canary.Net"),
    "a profiler": ("trainer.profiler", "canary.Net", "canary.Net"),
    "a plug-in": ("trainer.plugins", [{"class_path": "canary.Net"}], "canary.Net"),
    "an address": ("trainer.logger", logger("MLFlowLogger", tracking_uri="http://x"), "MLFlowLogger"),
    "a program": ("trainer.logger", logger("WandbLogger", settings={"x": "/bin/sh"}), "'/bin/sh'"),
    "a class among keywords": (
        "trainer.logger",
        {**logger("CSVLogger"), "dict_kwargs": {"a": {"class_path": "canary.Net"}}},
        "canary.Net",
    ),
    "a hidden entry": ("trainer.logger", {**logger("CSVLogger"), "__path__": "canary.yaml"}, "__path__"),
}


@pytest.mark.parametrize("place", SETTINGS)
def test_recorded_settings_name_no_class_of_others(
    place: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, value, named = SETTINGS[place]
    assert named in refused(capsys, "test", "--ckpt_path", hostile({f"run_config.{key}": value}))


@pytest.mark.parametrize(
    "args", ["test --ckpt_path e.ckpt", "test --ckpt_path=e.ckpt", "profile --ckpt_path e.ckpt"]
)
def test_the_name_of_a_file_names_no_class(
    args: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(here)
    Path("e.py").write_text(f"{CANARY}ckpt = Net")
    networks = {"networks.generator": {"class_path": "e.ckpt", "init_args": {}}}
    hostile({"run_config.data.class_path": "e.ckpt", "gancompress.networks": networks})
    assert "wants the class e.ckpt" in refused(capsys, *args.split())


@pytest.mark.parametrize("command", ["fit", "validate", "predict"])
def test_every_command_looks(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hostile({"run_config.data.class_path": "canary.Data"})
    words = refused(capsys, command, "--ckpt_path", path)
    assert "error: data: the file wants the class canary.Data" in words
    assert "--trust" in words


def test_loggers_and_callbacks_of_lightning_are_ordinary(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = {"monitor": "val/l1", "patience": 3, "mode": "min", "stopping_threshold": None}
    callbacks = [
        {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": stop},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_top_k": 1}},
    ]
    settings = {
        "run_config.trainer.callbacks": callbacks,
        "run_config.trainer.logger": [logger("CSVLogger", name="mine"), logger("TensorBoardLogger")],
        "run_config.trainer.profiler": "simple",
    }
    with pytest.raises(SystemExit) as stopped:
        main(["test", "--ckpt_path", hostile(settings), "--print_config"])
    assert stopped.value.code in (0, None)
    assert "stopping_threshold" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["--trust", "--data=canary.Data", "canary.yaml"])
def test_what_the_user_names_may_be_named_by_the_file(
    how: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("canary.yaml").write_text("data: {class_path: canary.Data}\n")
    path = hostile({"run_config.data.class_path": "canary.Data"})
    allowed = ["--config", how] if how.endswith(".yaml") else [how]
    with pytest.raises(SystemExit) as stopped:
        main(["test", "--ckpt_path", path, *allowed, "--print_config"])
    assert stopped.value.code in (0, None)
    assert "canary.Data" in capsys.readouterr().out


def test_the_flag_is_not_recorded(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path", hostile({}), "--trust", "--print_config"])
    assert "trust" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "args", ["export --ckpt_path e.ckpt", "profile --ckpt_path e.ckpt", "report --folder run"]
)
@pytest.mark.parametrize("wanted", ["canary.Net", "canary.run", "os.system", "torch.hub.load"])
def test_a_header_names_no_class_of_others(
    args: str, wanted: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "gancompress.networks"
    networks = tiny.read(OLD / "finetune.ckpt")["gancompress"]["networks"]
    path = hostile(
        {key: {k: {**v, "class_path": wanted, "init_args": {}} for k, v in networks.items()}}, "finetune"
    )
    Path("run/checkpoints").mkdir(parents=True)
    shutil.copy(path, "run/checkpoints/last.ckpt")
    assert wanted in refused(capsys, *args.split())


def test_a_header_names_no_module_that_is_no_network(here: Path) -> None:
    spec = {"class_path": "lightning_gancompress.modules.CompressionModule", "init_args": {"teacher": "x"}}
    path = hostile({"gancompress.networks": {"networks.generator": spec}})
    with pytest.raises(UserError, match=r"CompressionModule' is none of the networks of this package"):
        load_generator(path)


def small(class_path: str, arguments: dict[str, Any] | None) -> Path:
    from canary import Net

    save_small(Net(5), NetworkSpec(class_path, arguments), "own.pth", preprocessing={}, provenance={})
    sys.modules.pop("canary")
    Path("it_ran").unlink()
    return Path("own.pth")


@pytest.mark.parametrize("wanted", ["os", "os.system", "canary.Net", "nowhere.Net", "builtins.eval", "..os"])
def test_a_description_chooses_no_module(
    wanted: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(here)
    file = small("canary.Net", {"width": 5})
    description = json.loads(file.with_suffix(".json").read_text())
    description["network"]["class_path"] = wanted
    file.with_suffix(".json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"wants the class|is no import path"):
        load_generator(file)
    assert wanted in refused(capsys, "export", "--ckpt_path", str(file))


def test_a_class_that_the_user_brings_is_built(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(here)
    file = small("canary.Net", {"width": 5})
    main(["export", "--ckpt_path", str(file), "--format=torch", "--size=8", "--trust"])
    from canary import Net

    assert load_generator(file, architecture=Net(5)).layer.weight.shape == (5, 3, 1, 1)
    with pytest.raises(UserError, match=r"architecture="):
        load_generator(file)
    NetworkSpec.of(Net(5))  # as a module does with a network that is passed to it
    assert load_generator(file).layer.weight.shape == (5, 3, 1, 1)


def test_no_file_of_the_working_folder_hides_a_package(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.path[:] = [path for path in sys.path if path not in ("", str(here))]
    main(["profile", "--ckpt_path", str(OLD / "teacher.ckpt")])
    assert sys.path[-1] == str(here)


@pytest.mark.parametrize("key", ["_instantiator", "class"])
def test_lightning_reads_no_class_from_a_checkpoint(key: str, here: Path) -> None:
    """Lightning's own way to make a module from a checkpoint."""
    if key == "_instantiator":
        path = hostile({"hyper_parameters._instantiator": "canary.run"})
    else:
        path = hostile({"hyper_parameters.generator": {"class_path": "canary.Net"}})
    with pytest.raises(UserError, match=r"canary"):
        TeacherModule.load_from_checkpoint(path)
    assert "canary" not in sys.modules


def test_shipped_networks_need_no_trust(here: Path) -> None:
    assert load_networks(OLD / "finetune.ckpt").keys() == load_networks(hostile({}, "finetune")).keys()
    assert isinstance(NetworkSpec.of(UnetGenerator(ngf=2, n_downs=5)).build(), UnetGenerator)
    assert issubclass(CompressionModule, torch.nn.Module)


@pytest.mark.parametrize("folder", ["elsewhere", "."])
def test_checkpoints_are_replaced_beside_the_one_that_names_them(
    folder: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": folder}}
    with pytest.raises(SystemExit):
        main(["fit", "--ckpt_path", hostile({"run_config.trainer.callbacks": [kept]}), "--print_config"])
    words = capsys.readouterr().out
    assert ("dirpath: ." in words) == (folder == ".")
    assert "elsewhere" not in words


@pytest.mark.parametrize(("folder", "stays"), [("kept", True), ("other/checkpoints", False)])
def test_folders_of_checkpoints_in_the_run_stay(
    folder: str, stays: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": f"run/{folder}"},
    }
    file = hostile({"run_config.trainer.callbacks": [kept], "run_config.trainer.default_root_dir": "run"})
    place = here / "moved" / "checkpoints" / "last.ckpt"
    place.parent.mkdir(parents=True)
    Path(file).rename(place)
    with pytest.raises(SystemExit):
        main(["fit", "--ckpt_path", str(place), "--print_config"])
    assert (f"moved/{folder}" in capsys.readouterr().out) == stays


def test_what_the_command_replaces_is_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hostile({"run_config.trainer.callbacks": [{"class_path": "canary.Net"}]})
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--ckpt_path", path, "--trainer.callbacks=ImageGrid", "--print_config"])
    assert stopped.value.code in (0, None)
    assert "canary" not in capsys.readouterr().out
    assert "canary" in refused(capsys, "fit", "--ckpt_path", path, "--trainer.callbacks+=ImageGrid")


def test_data_that_the_command_replaces_are_left_out(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = hostile({"run_config.data": {"class_path": "canary.Data", "init_args": {"batch_size": 3}}})
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--ckpt_path", path, "--data=SyntheticFacades", "--print_config"])
    assert stopped.value.code in (0, None)
    assert "canary" not in capsys.readouterr().out
    assert "data: what e.ckpt records of it is left out" in caplog.text
    assert "canary" in refused(capsys, "fit", "--ckpt_path", path, "--data.batch_size=2")
