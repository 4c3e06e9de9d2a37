"""Pictures that are not square, from the training to the exported file."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from lightning_gancompress import Translator
from lightning_gancompress.cli import main
from lightning_gancompress.data import FolderDataModule, Preprocessing
from lightning_gancompress.errors import UserError

HEIGHT, WIDTH = 32, 64
SIZE = ["--data.crop_size=[32,64]", "--data.load_size=[36,72]"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Options of pairs A | B of 70 x 40 pixels each."""
    folder = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        (folder / split).mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (40, 140, 3), np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
    options = ["layout=side_by_side", "batch_size=2", "num_workers=0"]
    return ["--data=PairedDataModule", f"--data.root={folder}", *(f"--data.{option}" for option in options)]


def test_from_training_to_the_exported_file(pairs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    data = [*pairs, *SIZE]
    main([*tiny.teacher(tmp_path / "teacher"), *data])
    main([*tiny.compression(tmp_path / "run", tiny.last(tmp_path / "teacher"), "UniformWidth"), *data])
    last = f"--ckpt_path={tiny.last(tmp_path / 'run')}"
    main(["test", last, *tiny.QUICK])
    results = json.loads((tmp_path / "run/test/results.json").read_text())
    assert results["networks"]["student"]["macs_exact"] < results["networks"]["teacher"]["macs_exact"] / 2
    main(["predict", last, f"--data.predict_folder={pairs[1].partition('=')[2]}/test", *tiny.QUICK])
    (picture, *_) = sorted((tmp_path / "run").rglob("predict*/**/0.png"))
    assert Image.open(picture).size == (WIDTH, HEIGHT)
    main(["export", f"--ckpt_path={tmp_path / 'run/generator.pth'}"])
    session = onnxruntime.InferenceSession(str(tmp_path / "run/generator.onnx"))
    assert session.get_inputs()[0].shape[1:] == [3, HEIGHT, WIDTH]
    record = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert (record["crop_size"], record["load_size"]) == ([HEIGHT, WIDTH], [36, 72])
    for ending in ("pth", "onnx"):
        picture = Translator(tmp_path / f"run/generator.{ending}").translate(Image.new("RGB", (70, 40)))
        assert picture.size == (70, 40)
    main(["report", f"--folder={tmp_path / 'run'}"])
    assert (tmp_path / "run/report.html").is_file()


def test_a_network_that_needs_a_multiple_says_so(pairs, tmp_path, capsys):
    options = ["--data.crop_size=[36,64]", "--data.load_size=[40,72]"]
    code, words = tiny.fail_code(capsys, [*tiny.teacher(tmp_path), *pairs, *options])
    assert code == 2
    assert (
        "UnetGenerator can't work on images of 36x64 pixels: height and width must be a multiple of 32"
        in words
    )
    main([*tiny.teacher(tmp_path, tiny.RESNET), *pairs, *options, "--trainer.fast_dev_run=true"])


@pytest.mark.parametrize(
    ("preprocess", "train", "evaluation"),
    [
        ("resize_and_crop", (16, 8), (16, 8)),
        ("crop", (16, 8), (16, 8)),
        ("scale_width", (20, 20), (16, 16)),
        ("scale_width_and_crop", (16, 8), (16, 8)),
    ],
)
def test_sizes_of_each_preprocess(preprocess, train, evaluation):
    preprocessing = Preprocessing(preprocess, load_size=[10, 20], crop_size=[8, 16])
    assert preprocessing.trained_size((30, 30)) == train
    assert preprocessing.final_size((30, 30)) == evaluation


def test_the_crop_is_anywhere_in_the_resized_image():
    preprocessing = Preprocessing(load_size=[10, 20], crop_size=[8, 16])
    random = np.random.default_rng(0)
    views = [preprocessing.transform((30, 30), "x", random) for _ in range(200)]
    assert {view.size for view in views} == {(20, 10)}
    assert {view.box[:2] for view in views} == {(x, y) for x in range(5) for y in range(3)}
    assert {(view.box[2] - view.box[0], view.box[3] - view.box[1]) for view in views} == {(16, 8)}


def test_a_larger_crop_names_the_load_size_that_works():
    with pytest.raises(
        UserError, match=r"crop_size \[256, 512\] is larger than data\.load_size 286: raise"
    ) as told:
        Preprocessing(crop_size=[256, 512])
    assert "[286, 572]" in str(told.value)
    Preprocessing(crop_size=[256, 512], load_size=[286, 572])


def test_a_record_has_plain_types(tmp_path):
    record = FolderDataModule(str(tmp_path), load_size=(10, 20), crop_size=(8, 16)).preprocessing
    assert (record["load_size"], record["crop_size"]) == ([10, 20], [8, 16])
