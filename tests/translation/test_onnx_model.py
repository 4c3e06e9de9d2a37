"""ONNX files of `export`, and of others."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gancompress import Translator, UserError, load_generator
from lightning_gancompress.cli import main
from lightning_gancompress.export import export_onnx
from lightning_gancompress.translation import open_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
RECORD = {"preprocess": "resize_and_crop", "load_size": 36, "crop_size": 32, "in_channels": 3}
FLOAT, BYTE = 1, 2


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def made(path, inputs, outputs=None, nodes=None, kind=FLOAT, metadata=None, **fields):
    """An ONNX file of a graph that passes on its input, unless `nodes` say otherwise."""
    helper = onnx.helper
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["image"], ["output"])],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("output", kind, outputs or next(iter(inputs.values())))],
        **fields,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_file_translates_as_its_network(saved, tmp_path, dynamic):
    path, file = saved("ResnetGenerator"), tmp_path / "g.onnx"
    sample = torch.zeros(1, 3, 32, 32)
    export_onnx(load_generator(path), file, sample, dynamic_size=dynamic, preprocessing=RECORD)
    ours, theirs = Translator(path, threads=1), Translator(str(file), threads=1)
    assert theirs.model.preprocessing == RECORD
    assert (theirs.model.fixed_size, theirs.model.multiple) == ((None, 4) if dynamic else ((32, 32), None))
    for size in ("restored", "model", *["kept"] * dynamic):
        one, other = (np.asarray(t.translate(picture(50, 41), size=size), int) for t in (ours, theirs))
        assert np.abs(one - other).max() <= 1
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(theirs.model(images), ours.model(images), atol=1e-4, rtol=0)
    if not dynamic:
        with pytest.raises(UserError, match=r"takes images of 32x32 pixels alone"):
            theirs.translate(picture(50, 41), size="kept")


def test_a_file_of_one_image_at_a_time_takes_batches(tmp_path):
    path = made(tmp_path / "one.onnx", {"image": [2, 3, 8, 8]})
    images = torch.rand(5, 3, 8, 8) * 2 - 1
    assert torch.equal(open_model(path)(images), images)


def test_an_openvino_file_of_two_images_at_a_time_takes_batches(tmp_path):
    openvino = pytest.importorskip("openvino")
    model = openvino.convert_model(made(tmp_path / "two.onnx", {"image": [2, 3, 8, 8]}))
    openvino.save_model(model, tmp_path / "two.xml", compress_to_fp16=False)
    images = torch.randint(0, 2, (5, 3, 8, 8)) * 2.0 - 1  # which bfloat16 has
    assert torch.equal(open_model(tmp_path / "two.xml")(images), images)


@pytest.mark.parametrize("shape", [["n", 3, "h", "w"], ["n", "h", "w", 3]])
def test_a_file_of_8_bits_reads_and_gives_levels(tmp_path, shape):
    path, source = made(tmp_path / "byte.onnx", {"image": shape}, kind=BYTE), picture(20, 12)
    translated = Translator(path).translate(source, size="kept")
    assert np.array_equal(np.asarray(translated), np.asarray(source))


def add(*names):
    return [onnx.helper.make_node("Add", list(names), ["output"])]


@pytest.mark.parametrize(
    ("inputs", "more", "words"),
    [
        (
            {"image": ["n", 3, 8, 8], "style": ["n", 3, 8, 8]},
            {"nodes": "two"},
            "its input should be one batch",
        ),
        ({"image": ["n", 3]}, {}, r"its input should be one batch of images, .* and is image .*\['n', 3\]"),
        ({"image": ["n", 3, 8, 8]}, {"kind": 7}, r"should be one batch .*int64"),
        ({"image": ["n", "c", 8, 8]}, {}, "a dimension of c, where images have 1 to 1024"),
        ({"image": ["n", 3, 0, 8]}, {}, "a dimension of 0"),
        ({"image": ["n", 3, 2**40, 8]}, {}, "a dimension of 1099511627776"),
        ({"image": ["n", 5, 8, 8]}, {}, "reads images of 5 channels, and pictures have 1 or 3"),
        ({"image": ["n", 3, 8, 8]}, {"metadata": {"preprocessing": "{"}}, "damaged metadata"),
        ({"image": ["n", 3, 8, 8]}, {"metadata": {"preprocessing": "[" * 10**5}}, "damaged metadata"),
        ({"image": ["n", 3, 8, 8]}, {"metadata": {"preprocessing": '{"crop_size": -1}'}}, "damaged metadata"),
        (
            {"image": ["n", 3, 8, 8]},
            {"metadata": {"preprocessing": json.dumps({"in_channels": 1})}},
            "reads images of 3 channels, and its preprocessing is for 1",
        ),
        ({"image": ["n", 3, 8, 8]}, {"nodes": "custom"}, "can't be loaded by ONNX Runtime .* operator"),
        ({"image": ["n", 3, 8, 8]}, {"nodes": "external"}, "can't be loaded by ONNX Runtime"),
    ],
)
def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path, inputs, more, words):
    if more.get("nodes") == "two":
        more = {"nodes": add("image", "style")}
    elif more.get("nodes") == "custom":
        more = {"nodes": [onnx.helper.make_node("Paint", ["image"], ["output"], domain="own")]}
    elif more.get("nodes") == "external":
        (tmp_path / "secret").write_bytes(bytes(4))
        weight = onnx.helper.make_tensor("w", FLOAT, [1], bytes(4), raw=True)
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../secret")
        (tmp_path / "inner").mkdir()
        more = {"nodes": add("image", "w"), "initializer": [weight]}
    folder = tmp_path / "inner" if (tmp_path / "inner").is_dir() else tmp_path
    path = made(folder / "other.onnx", inputs, **more)
    with pytest.raises(UserError, match=words) as error:
        Translator(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 800


def test_damaged_and_missing_files_are_named(tmp_path):
    path = made(tmp_path / "whole.onnx", {"image": ["n", 3, 8, 8]})
    content = path.read_bytes()
    for number, data in enumerate((b"", content[: len(content) // 2], b"\x89PNG" * 50)):
        other = tmp_path / f"{number}.onnx"
        other.write_bytes(data)
        with pytest.raises(UserError, match=rf"{number}\.onnx"):
            Translator(other)
    with pytest.raises(UserError, match=r"There is no file .*nothing\.onnx"):
        Translator(tmp_path / "nothing.onnx")
    with pytest.raises(UserError, match="leave network, batch_norm and architecture out"):
        Translator(path, network="teacher.generator")
    with pytest.raises(UserError, match="device is 'tpu', and ONNX Runtime runs on cpu"):
        Translator(path, device="tpu")


def test_a_file_that_fails_when_it_runs_says_so(tmp_path):
    bias = onnx.helper.make_tensor("b", FLOAT, [1, 1, 1, 7], [0.0] * 7)
    path = made(
        tmp_path / "late.onnx", {"image": ["n", 3, "h", "w"]}, nodes=add("image", "b"), initializer=[bias]
    )
    translator = Translator(path)
    with pytest.raises(
        UserError, match=r"takes images of 256x256 pixels alone|fails on images of 256x256"
    ) as error:
        translator.translate(picture(20, 20))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dynamic", [False, True])
def test_pixels_can_be_built_in(saved, tmp_path, dynamic, capsys):
    path, file = saved("ResnetGenerator"), tmp_path / "g.onnx"
    dynamic_size = ["--dynamic_size"] * dynamic
    main(["export", f"--ckpt_path={path}", f"--output={file}", "--uint8", *dynamic_size])
    said = capsys.readouterr().out
    assert "input 1x32x32x3 of 8 bits" in said
    assert re.search(r"at most [01] grey levels in a trial on random images$", said.rstrip())
    source = picture(32, 32)
    expected = np.asarray(Translator(path).translate(source), int)
    session = onnxruntime.InferenceSession(file)  # as one would without this package
    (found,) = session.run(None, {"image": np.asarray(source)[None]})
    assert found.dtype == np.uint8
    assert np.abs(found[0].astype(int) - expected).max() <= 1
    ours, theirs = Translator(path), Translator(file)
    assert theirs.model.fixed_size == (None if dynamic else (32, 32))
    for size in ("restored", "model", *["kept"] * dynamic):
        one, other = (np.asarray(t.translate(picture(50, 41), size=size), int) for t in (ours, theirs))
        assert np.abs(one - other).max() <= 2  # resized from levels that differ by one


def test_pixels_are_for_pictures_and_onnx(saved, tmp_path, capsys):
    for path, more, words in (
        (
            saved(in_channels=4, record={"crop_size": 32, "in_channels": 4}),
            [],
            "maps images of 4 channels to 3",
        ),
        (saved(name="other.pth"), ["--format=torch"], "uint8 is for --format onnx"),
    ):
        with pytest.raises(SystemExit):
            main(["export", f"--ckpt_path={path}", "--uint8", *more])
        assert words in capsys.readouterr().err
        assert not [file for file in tmp_path.iterdir() if file.suffix in (".onnx", ".pt2")]
