"""Export of Pix2Pix's networks, of CycleGAN's, and of foreign ones."""

import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import nn

from lightning_gancompress import UserError, load_generator, trust
from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.cli import main
from lightning_gancompress.cli.commands.export import beside, export
from lightning_gancompress.cli.commands.profile import profile
from lightning_gancompress.networks import NetworkSpec

SOURCE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Twofold(nn.Module):
    """Of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, image, style):
        return self.conv(image) + style


class Named(nn.Module):
    """Of several outputs, at odd sizes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, image):
        assert image.shape[-1] % 2, "odd sizes alone"
        return {"image": self.conv(image)}


def test_export_needs_no_config(unet, tmp_path, capsys):
    path = tmp_path / "small.pt2"
    main(["export", "--ckpt_path", str(unet), "--format=torch", "--output", str(path)])
    image = torch.rand(2, 3, 32, 32) * 2 - 1  # the size of the training
    exported = torch.export.load(path).module()(image)
    torch.testing.assert_close(exported, load_generator(unet)(image))
    said = capsys.readouterr().out
    assert "Wrote" in said
    assert re.search(r"differs from the network by at most \S+ in a trial on random images$", said)


def test_export_says_that_a_network_is_masked(unet, facades, tmp_path, capsys):
    main([*tiny.compression(tmp_path, unet), *facades, "--trainer.max_epochs=1"])
    for network, said in (("generator", True), ("teacher.generator", False)):
        capsys.readouterr()
        main(["export", f"--ckpt_path={tiny.last(tmp_path)}", "--format=torch", f"--network={network}"])
        assert ("isn't over: this is the student cut by its masks" in capsys.readouterr().out) == said


def test_export_of_the_networks_own_layers(unet, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "own.onnx"
    main(["export", f"--ckpt_path={unet}", f"--output={path}", "--optimize=false"])
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    ups = [m for m in load_generator(unet).modules() if isinstance(m, nn.ConvTranspose2d)]
    assert any(up.in_channels % 4 == 0 for up in ups)  # those that would be written in another form
    assert kinds.count("ConvTranspose") == len(ups)


def test_export_of_a_size(unet, tmp_path):
    path = tmp_path / "wide.pt2"
    main(["export", "--ckpt_path", str(unet), "--format=torch", "--output", str(path), "--size=[32, 64]"])
    assert torch.export.load(path).module()(torch.zeros(1, 3, 32, 64)).shape == (1, 3, 32, 64)


@pytest.mark.parametrize("network", ["generator_AtoB", "generator_BtoA", "teacher.generator_BtoA"])
def test_each_direction_is_exported_beside_the_checkpoint(file, networks, network):
    export(str(file), "torch", network=network)
    teacher = "teacher_" if network.startswith("teacher.") else ""
    path = file.with_name(f"last_{teacher}{network[-4:]}.pt2")
    expected = networks[network if "." in network else f"student.{network}"](SOURCE)
    torch.testing.assert_close(torch.export.load(path).module()(SOURCE), expected)


def test_networks_of_one_file_get_files_of_their_own():
    parts = ("", "teacher.", "G_ema.")
    names = [f"{part}generator{way}" for part in parts for way in ("", "_AtoB", "_BtoA")] + ["netG", "G_ema"]
    paths = {name: beside(Path("last.ckpt"), name, ".onnx") for name in names}
    assert len(set(paths.values())) == len(names)
    assert paths["generator"] == Path("last.onnx")
    assert paths["teacher.generator"] == Path("last_teacher.onnx")
    assert paths["teacher.generator_BtoA"] == Path("last_teacher_BtoA.onnx")
    for same in ("student.generator_AtoB", "networks.generator_AtoB"):
        assert beside(Path("last.ckpt"), same, ".onnx") == paths["generator_AtoB"]


def test_an_export_asks_for_the_direction(file):
    with pytest.raises(UserError, match=r"generator_AtoB or generator_BtoA \(.*--network"):
        export(str(file), "torch")
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_a_name_with_a_direction_is_not_given_it_again(tmp_path, specs, networks):
    path = tmp_path / "generator_AtoB.pth"
    recorded = {"preprocessing": {"crop_size": 16}, "provenance": {}}
    save_small(networks["student.generator_AtoB"], specs["generator_AtoB"], path, **recorded)
    export(str(path), "torch", network="generator_AtoB")
    assert path.with_suffix(".pt2").is_file()
    with pytest.raises(UserError, match="network of AtoB by its name, where generator_BtoA is needed"):
        export(str(path), "torch", network="generator_BtoA")


@pytest.mark.parametrize("command", [export, profile])
@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            Twofold,
            r"Twofold can't be given its inputs: forward\(image, style\) is called with one image batch",
        ),
        (Named, r"Named .*images? .*16.*odd sizes alone.*another (--)?size"),
    ],
)
def test_a_foreign_network_that_takes_no_image_is_refused(tmp_path, command, network, words):
    path = tmp_path / "own.pth"
    spec = NetworkSpec(f"{__name__}.{network.__name__}", {})
    save_small(network(), spec, path, preprocessing={"crop_size": 16}, provenance={})
    with trust.trusting(trust.Named(everything=True)), pytest.raises(UserError, match=words):
        command(ckpt_path=str(path))
    assert {path.name for path in tmp_path.iterdir()} == {"own.pth", "own.json"}


def test_int8_takes_its_ranges_from_pictures_as_the_network_sees_them(unet, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (50, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    options = [f"--ckpt_path={unet}", "--precision=int8", f"--calibration={tmp_path / 'pictures'}"]
    with pytest.warns(UserWarning, match=r"has 5 pictures of more than one colour.* give 10 or more"):
        main(["export", *options, f"--output={tmp_path / 'small.onnx'}"])
    said = capsys.readouterr().out
    assert re.search(
        r"MB \([\d.]+ in float32\), input 1x3x32x32, .* on average, at most .* on pictures of ", said
    )
    assert "QuantizeLinear" in [node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node]
    main(["export", *options, "--size=64"])  # not that of the training, beside the checkpoint
    assert unet.with_name("last.int8.onnx").is_file()
    unet.with_name("last.int8.onnx").unlink()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision=int8"], "int8 needs --calibration, a folder of pictures"),
        (["--precision=int8", "--calibration=EMPTY"], r"No pictures .* holds nothing; expected files"),
        (["--precision=int8", "--calibration=PLAIN"], "pictures of a single colour alone: give pictures"),
        (
            ["--precision=int8", "--calibration=EMPTY", "--format=torch"],
            "int8 is for --format onnx and openvino",
        ),
        (["--calibration=EMPTY"], "calibration is for --precision int8: leave it out"),
        (
            ["--output=n.txt"],
            r"n.txt doesn't end in .onnx.*\(.onnx for onnx, .xml for openvino, .pt2 for torch\)",
        ),
        (["--format=openvino"], "n.onnx doesn't end in .xml, as a file of --format openvino does"),
        (["--keep_float=[a]"], "keep_float is for --precision int8 or fp16: leave it out"),
    ],
)
def test_bad_options_of_the_precision_are_refused(unet, tmp_path, capsys, options, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "plain" / "a.png")
    for folder in ("empty", "plain"):
        options = [option.replace(folder.upper(), str(tmp_path / folder)) for option in options]
    capsys.readouterr()
    arguments = ["export", f"--ckpt_path={unet}", f"--output={tmp_path / 'n.onnx'}", *options]
    code, text = tiny.fail_code(capsys, arguments)
    assert code == 2
    assert re.search(words, text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "plain"]
