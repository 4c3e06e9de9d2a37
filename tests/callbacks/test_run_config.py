import json
from types import SimpleNamespace

import tiny

from lightning_gancompress.callbacks.run_config import RunConfig
from lightning_gancompress.cli import main


def test_settings_lie_beside_the_run_and_in_its_checkpoint(tmp_path, facades):
    args = [*tiny.teacher(tmp_path), *facades, "--trainer.max_epochs=1", "--trainer.logger=CSVLogger"]
    main([*args, f"--trainer.logger.save_dir={tmp_path / 'csv'}"])
    text = (tmp_path / "config.yaml").read_text()
    assert text.startswith("# lightning_gancompress ")
    assert "class_path: lightning_gancompress.modules.TeacherModule" in text
    settings = tiny.read(tiny.last(tmp_path))["run_config"]
    assert settings["trainer"]["max_epochs"] == 1
    (logged,) = tmp_path.rglob("hparams.yaml")
    assert "max_epochs: 1" in logged.read_text()


def test_a_saved_config_starts_the_same_run(tmp_path, facades):
    main([*tiny.teacher(tmp_path / "a"), *facades, "--trainer.max_epochs=1"])
    again = ["--config", str(tmp_path / "a" / "config.yaml")]
    main(["fit", *again, "--trainer.default_root_dir", str(tmp_path / "b")])
    tiny.assert_same_end(tmp_path / "a", tmp_path / "b")


class Dumper:
    """A parser whose settings are what it is given."""

    def dump(self, config, format, skip_unset):
        return json.dumps(config)


def test_an_earlier_config_is_kept(tmp_path):
    trainer = SimpleNamespace(default_root_dir=tmp_path, loggers=[])
    for settings in ({"lr": 1}, {"lr": 1}, {"lr": 2}, {"lr": 3}):
        RunConfig(Dumper(), settings).save_config(trainer, None, "fit")
    found = {path.name: json.loads(path.read_text().splitlines()[1]) for path in tmp_path.iterdir()}
    assert found == {"config_1.yaml": {"lr": 1}, "config_2.yaml": {"lr": 2}, "config.yaml": {"lr": 3}}


def test_a_config_of_the_users_stays(tmp_path):
    trainer = SimpleNamespace(default_root_dir=tmp_path, loggers=[])
    (tmp_path / "config.yaml").write_text("mine")
    RunConfig(Dumper(), {"lr": 1}).save_config(trainer, None, "fit")
    assert (tmp_path / "config.yaml").read_text() == "mine"
    assert json.loads((tmp_path / "config_1.yaml").read_text().splitlines()[1]) == {"lr": 1}


def test_evaluation_leaves_the_config_alone(tmp_path, unet):
    main(["test", "--ckpt_path", str(unet), "--trainer.default_root_dir", str(tmp_path)])
    assert not (tmp_path / "config.yaml").exists()


def test_a_refused_run_leaves_the_config_alone(tmp_path, facades, unet, capsys):
    args = [*tiny.compression(tmp_path / "run", unet, "UniformWidth"), *facades]
    main([*args, "--trainer.max_epochs=1"])
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("config*")}
    late = [*args, "--model.budget=0.2", f"--ckpt_path={tiny.last(tmp_path / 'run')}"]
    code, words = tiny.fail_code(capsys, late)
    assert code == 2
    assert "model.budget: 0.2 comes too late" in words
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("config*")} == before
    assert list(before) == ["config.yaml"]
