"""`predict` by a model file alone."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gancompress import Translator
from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.cli import main
from lightning_gancompress.cli.commands import predict as command
from lightning_gancompress.cli.commands.predict import by_model_file
from lightning_gancompress.data.synthetic import render_facade
from lightning_gancompress.networks import NetworkSpec


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    spec = NetworkSpec("lightning_gancompress.networks.ResnetGenerator", {"ngf": 2, "n_blocks": 1})
    path = tmp_path / "generator.pth"
    save_small(spec.build(), spec, path, preprocessing={"crop_size": 16, "in_channels": 3}, provenance={})
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b.png", "sub/a.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_of_animations_it_is_told_that_their_first_frame_was_translated(model, photos, tmp_path, capsys):
    frames = [Image.new("L", (20, 24), grey) for grey in (0, 255)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(photos / "still.gif")
    run(f"--model={model}", f"--input={photos}", f"--output={tmp_path / 'out'}")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Translated: "))
    assert line.endswith("/out, of 1 the first frame alone, since animated.")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run(*args):
    main(["predict", *map(str, args)])


@pytest.mark.parametrize(
    ("words", "alone"),
    [
        ("--model g.onnx --input a.jpg", True),
        ("--input=photos --model=g.onnx", True),
        ("--model=hf://user/model", True),
        ("--model generator.pth", True),
        ("--config a.yaml --ckpt_path last.ckpt", False),
        ("--config a.yaml --ckpt_path last.ckpt --model.batch_norm image", False),
        ("--model CompressionModule --model.teacher generator.pth", False),
    ],
)
def test_the_two_forms_of_predict_are_told_apart(words, alone):
    assert by_model_file(words.split()) == alone


def test_a_folder_is_translated_as_by_a_translator(model, photos, tmp_path, capsys):
    run("--model", model, "--input", photos, "--output", tmp_path / "out", "--threads=1")
    assert files(tmp_path / "out") == ["a.png", "b.png", "sub/a.png"]
    expected = Translator(model, threads=1).translate(photos / "sub/a.png")
    assert expected.size == (24, 20)
    with Image.open(tmp_path / "out/sub/a.png") as written:
        assert np.array_equal(np.asarray(written), np.asarray(expected))
    assert f"Translated: 3 pictures in {tmp_path / 'out'}.\n" in capsys.readouterr().out


def test_one_picture_goes_to_predictions_and_options_act(model, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(f"--model={model}", f"--input={photos / 'a.png'}", "--size=model")
    with Image.open("predictions/a.png") as written:
        assert written.size == (16, 16)
    run(f"--model={model}", f"--input={photos / 'a.png'}", "--tile=16", "--overlap=4")
    assert "1 picture in predictions, 1 in place of earlier ones." in capsys.readouterr().out
    with Image.open("predictions/a.png") as written:
        assert written.size == (24, 20)


def test_a_broken_picture_is_left_out_and_named(model, photos, tmp_path, capsys):
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:100])
    (photos / "c.jpg").write_text("no image")
    with pytest.raises(SystemExit) as stop:
        run("--model", model, "--input", photos, "--output", tmp_path / "out")
    said = capsys.readouterr()
    assert stop.value.code == 1
    assert files(tmp_path / "out") == ["a.png", "sub/a.png"]
    assert said.err.count("Left out: ") == 2
    assert "b.png can't be decoded" in said.err
    assert "Translated: 2 pictures in" in said.out
    assert "2 left out." in said.out


def test_nothing_is_written_where_nothing_can_be(model, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    out, before = tmp_path / "out", {name: (photos / name).read_bytes() for name in files(photos)}
    for args, words in [
        (["--model", model, "--input", tmp_path / "empty"], "No pictures to translate: "),
        (["--model", model, "--input", tmp_path / "nowhere"], "There is no picture or folder"),
        (["--model", tmp_path / "no.onnx", "--input", photos], "There is no file"),
        (["--model", model, "--input", photos, "--tile=18"], "takes multiples of 4: set tile to 20"),
        (["--model", model, "--input", photos, "--size=model", "--tile=16"], "leave tile out"),
        (["--model", model, "--input", broken], "No picture was translated: Image "),
        (["--model", model], "input"),
    ]:
        with pytest.raises(SystemExit) as stop:
            run(*args, *([] if words == "input" else ["--output", out]))
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error
        assert not out.exists() or not files(out)
    with pytest.raises(SystemExit):
        run("--model", model, "--input", photos, "--output", photos)
    assert "is the folder of the pictures: choose another" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--model", model, "--input", photos, "--output", tmp_path / "result.png")
    assert "is the name of a picture: give the folder" in capsys.readouterr().err
    assert {name: (photos / name).read_bytes() for name in files(photos)} == before


def test_pairs_that_are_read_whole_are_told(model, tmp_path):
    (tmp_path / "pairs").mkdir()
    for number in range(8):
        sides = [np.array(side) for side in render_facade(64, 0, number)]
        Image.fromarray(np.concatenate(sides, axis=1)).save(tmp_path / "pairs" / f"{number}.png")
    with pytest.warns(UserWarning, match=r"pairs look like pairs A \| B side by side, but are read whole"):
        run("--model", model, "--input", tmp_path / "pairs", "--output", tmp_path / "out")


def test_results_within_the_folder_are_no_sources_of_the_next_run(model, photos, capsys):
    for _ in range(2):
        run("--model", model, "--input", photos, "--output", photos / "out")
    assert files(photos / "out") == ["a.png", "b.png", "sub/a.png"]
    assert "3 in place of earlier ones" in capsys.readouterr().out


def test_a_source_behind_a_link_is_not_replaced(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").symlink_to(photos / "a.png")
    before = (photos / "a.png").read_bytes()
    with pytest.raises(SystemExit):
        run("--model", model, "--input", photos, "--output", out)
    assert "is one of the pictures: choose another output" in capsys.readouterr().err
    assert (photos / "a.png").read_bytes() == before


def test_progress_is_told_in_lines_or_as_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(command, "SECONDS", 0)
    assert list(command._progress("abc", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out == "Translating: 1 of 3 pictures\nTranslating: 2 of 3 pictures\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(command._progress("abc", 3)) == ["a", "b", "c"]
    assert "1 of 3" not in capsys.readouterr().out


def test_the_help_shows_both_forms(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    said = capsys.readouterr().out
    assert said.index("--input INPUT") < said.index("With a configuration of a run:")
    assert said.index("With a configuration of a run:") < said.index(
        "--data.predict_folder" if "--data.predict_folder" in said else "--ckpt_path"
    )
