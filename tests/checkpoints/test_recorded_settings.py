from importlib import import_module
from pathlib import Path

import pytest
import tiny
import torch

from lightning_gancompress import data
from lightning_gancompress.checkpoints.recorded_classes import arguments_of
from lightning_gancompress.checkpoints.recorded_settings import MOVED, current_names, recorded_settings
from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError

OLD = "lightning_gancompress.modules.distillation.Distillation"


@pytest.mark.parametrize("old", MOVED)
def test_a_moved_class_is_where_the_table_says(old):
    module, _, name = MOVED[old].rpartition(".")
    assert getattr(import_module(module), name).__name__ == old.rpartition(".")[2]


def test_names_of_classes_are_brought_up_to_date():
    model = {"init_args": {"distillation": {"class_path": OLD, "init_args": {"task": 0.0}}}}
    settings = recorded_settings({"run_config": {"model": model}})
    assert settings["model"]["init_args"]["distillation"]["class_path"] == MOVED[OLD]
    assert model["init_args"]["distillation"]["class_path"] == OLD
    assert recorded_settings({}) == {}


def test_other_names_stay():
    text = f"class_path: {OLD}2\nother: my.{OLD}s\n"
    assert current_names(text) == text


def test_a_run_with_a_moved_class_goes_on(tmp_path, unet, facades):
    terms = ["--model.distillation=Distillation", "--model.distillation.features=1"]
    main([*tiny.compression(tmp_path, unet, "UniformWidth", *terms), *facades, "--trainer.max_epochs=1"])
    last = tiny.last(tmp_path)
    checkpoint = tiny.read(last)
    checkpoint["run_config"]["model"]["init_args"]["distillation"]["class_path"] = OLD
    torch.save(checkpoint, last)
    main(["fit", "--ckpt_path", str(last)])
    assert tiny.read(last)["epoch"] == 1


def test_an_earlier_configuration_is_read(tmp_path, capsys):
    path = Path(tmp_path, "config.yaml")
    terms = f"{{class_path: {OLD}, init_args: {{features: 1.0}}}}"
    path.write_text(f"model: {{class_path: CompressionModule, init_args: {{distillation: {terms}}}}}\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert not stop.value.code
    assert "features: 1.0" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in data.__all__ if name.endswith(("DataModule", "Facades"))])
def test_the_types_of_all_options_of_data_modules_are_known(name):
    assert [option for option, hint in arguments_of(getattr(data, name)).items() if hint is object] == []


@pytest.mark.parametrize("settings", [[], {"trainer": 1}, {"data": torch.zeros(2)}, {("a", "b"): 1}])
def test_damaged_settings_are_refused(settings):
    with pytest.raises(UserError, match=r"the settings in the checkpoint \(run_config\) are damaged"):
        recorded_settings({"run_config": settings})
