import pytest
import tiny

from lightning_gancompress.errors import did_you_mean

FIT = ["fit", "--config", "quickstart.yaml"]
MISTYPED = [
    ([*FIT, "--model.budgt=0.1"], "budget"),
    ([*FIT, "--model.distillation.featurs=0.1"], "features"),
    ([*FIT, "--trainer.callbacks.serch_epochs=3"], "search_epochs"),
    ([*FIT, "--trainer.max_epohcs=3"], "--trainer.max_epochs"),
    ([*FIT, "--model=CompresionModule"], "CompressionModule"),
    ([*FIT, "--model.task=Pix2Pxi"], "Pix2Pix"),
    ([*FIT, "--trainer.callbacks=ColaborativePruning"], "CollaborativePruning"),
    (["fit", "--modl.budget=3"], "--model.budget"),
    (["export", "--ckpt_pth", "x"], "--ckpt_path"),
    (["data", "check", "--data=PairedDataModule", "--data.crop_sise=3"], "crop_size"),
    (["fit", "--config", "quickstrt.yaml"], "quickstart.yaml"),
]


@pytest.mark.parametrize(("words", "meant"), MISTYPED)
def test_a_mistyped_word_is_told_with_the_one_that_was_meant(words, meant, capsys):
    code, said = tiny.fail_code(capsys, words)
    assert code == 2
    assert f" Did you mean {meant}?" in said


@pytest.mark.parametrize("words", [[*FIT, "--model.zzzz=1"], [*FIT, "--model=zzzz"], ["fit", "--zzzz=1"]])
def test_a_word_that_is_close_to_none_gets_no_suggestion(words, capsys):
    code, said = tiny.fail_code(capsys, words)
    assert code == 2
    assert "zzzz" in said
    assert "Did you mean" not in said


def test_an_unknown_class_is_named_once(capsys):
    _, said = tiny.fail_code(capsys, [*FIT, "--model.task=Pix2Pxi"])
    assert (
        "model.task: expected a known class, an import path (package.Class) or a YAML file, not Pix2Pxi. Did"
        in said
    )
    assert said.count("Pix2Pxi") == 1


def test_of_several_words_the_closest_is_meant():
    assert did_you_mean("lrs", ["lr", "lrelu"]) == " Did you mean lr?"
    assert did_you_mean("lr", []) == ""
    assert did_you_mean("--modl", ["--model", "--data"], ".lr") == " Did you mean --model.lr?"


@pytest.mark.parametrize("name", ["missing.yaml", "folder/missing.yml", "missing.json"])
def test_a_file_that_is_missing_is_no_class(name, capsys):
    code, said = tiny.fail_code(capsys, [*FIT, f"--model.task={name}"])
    assert code == 2
    assert (
        f"error: model.task: there is no file {name}: write its path from this folder, or whole. See" in said
    )


def test_what_a_missing_file_should_say_is_read_from_there(tmp_path, monkeypatch, capsys):
    """The remedy of the message before."""
    (tmp_path / "task.yaml").write_text("class_path: Pix2Pix\ninit_args:\n  lambda_l1: -1\n")
    monkeypatch.chdir(tmp_path)
    for name in ("task.yaml", str(tmp_path / "task.yaml")):
        _, said = tiny.fail_code(capsys, [*FIT, f"--model.task={name}"])
        assert "lambda_l1" in said
