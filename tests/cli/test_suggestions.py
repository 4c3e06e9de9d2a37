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
