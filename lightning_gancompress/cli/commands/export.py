"""The command `export`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lightning_gancompress.checkpoints import load_network
from lightning_gancompress.checkpoints.generators import recorded
from lightning_gancompress.errors import UserError
from lightning_gancompress.export import Precision, Reduction, export_onnx, export_openvino, export_torch
from lightning_gancompress.files import fitting, require_writable, user_path
from lightning_gancompress.networks import BatchNorm, blank_image, image_channels, pixels
from lightning_gancompress.options import Pixels, checked
from lightning_gancompress.run_index import write_index
from lightning_gancompress.translation.inputs import model_inputs
from lightning_gancompress.translation.torch_model import TorchModel

_ENDING = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_FEW_PICTURES = 10  # from which on ranges and difference held for others, to 10 %, in a trial
_MOST_PICTURES = 128  # of a calibration; one in five is held out, to compare the file with the network


@checked
def export(
    ckpt_path: str,
    format: Literal["onnx", "openvino", "torch"] = "onnx",
    output: str | None = None,
    size: Pixels | tuple[Pixels, Pixels] | None = None,
    dynamic_size: bool = False,
    optimize: bool = True,
    precision: Precision = "float32",
    calibration: str | None = None,
    keep_float: list[str] | None = None,
    uint8: bool = False,
    batch_norm: BatchNorm | None = None,
    network: str = "generator",
) -> None:
    """Write a generator as ONNX, for OpenVINO, or as a torch.export program, checked against the original.

    The recorded preprocessing is written into the file, as JSON: ONNX's metadata, OpenVINO's runtime
    information, torch's extra file `preprocessing`.

    Args:
        ckpt_path: A training checkpoint, a small model, or an upstream `latest_net_G.pth`.
        format: `onnx` for ONNX Runtime, `openvino` for OpenVINO's `.xml` and `.bin`, `torch` for
            `torch.export.load`.
        output: File to write; None writes beside `ckpt_path`. An exported file that is there is replaced.
        size: Image size in pixels, or `[height, width]`; None is that of the training.
        dynamic_size: Let the file accept other sizes too; not for `torch`.
        optimize: Write layers of an ONNX file in the form that is fastest on CPUs; false keeps those of the
            network, for other devices.
        precision: `fp16` halves a file, and is computed as such by GPUs and phones; `int8` quarters it,
            and makes its convolutions faster on CPUs with 8-bit instructions. Input and output stay float.
        calibration: For `int8`, a folder of pictures such as the network will see, a hundred or so.
        keep_float: Layers that stay float, by name or pattern (`model.1`, `model.model.1.*`), beside those
            that always do: the first and the last convolution, and norms.
        uint8: Have the ONNX file read and give pixels of 8 bits, (batch, height, width, channels), so that
            who runs it need not know how the network reads images; for pictures of 1 or 3 channels.
        batch_norm: `image` for the statistics of each image, as upstream's test; None is as recorded.
        network: Network of a training checkpoint; `teacher.generator` for the uncompressed one,
            `generator_AtoB` or `generator_BtoA` for CycleGAN.
    """
    if dynamic_size and format == "torch":
        raise UserError("dynamic_size is for --format onnx and openvino; a torch program has a fixed size.")
    if uint8 and format != "onnx":
        raise UserError("uint8 is for --format onnx; other files read what their network reads.")
    if (trouble := _unusable(format, precision, calibration, keep_float)) is not None:
        raise UserError(trouble)
    source = user_path(ckpt_path)
    ending = _ENDING[format] if precision == "float32" else f".{precision}{_ENDING[format]}"
    path = user_path(output) if output else beside(source, network, ending)
    if path.suffix != _ENDING[format]:
        kinds = ", ".join(f"{ending} for {kind}" for kind, ending in _ENDING.items())
        raise UserError(
            f"output {path} doesn't end in {_ENDING[format]}, as a file of --format {format} does: choose "
            f"such a name, or the format of the ending ({kinds})."
        )
    replaced = path.exists()
    model, _ = load_network(source, network, batch_norm)
    preprocessing, phase = recorded(source)
    if phase == "search" and not network.startswith("teacher"):
        print(f"The search in {source} isn't over: this is the student cut by its masks, not fine-tuned yet.")
    require_writable(path.parent, "output")
    image = blank_image(model, size or pixels(preprocessing), image_channels(preprocessing))
    if format == "torch":
        facts = export_torch(model, path, image, preprocessing=preprocessing)
    else:
        pictures: list[Tensor] = []
        if calibration is not None:
            original = TorchModel(source, "cpu", network=network, batch_norm=batch_norm)
            original.fixed_size = (image.size(2), image.size(3))
            pictures = _calibration(original, calibration)
        reduction = None if precision == "float32" else _reduction(precision, pictures, keep_float or [])
        write = partial(export_onnx, uint8=uint8) if format == "onnx" else export_openvino
        facts = write(
            model,
            path,
            image,
            dynamic_size=dynamic_size,
            optimize=optimize,
            preprocessing=preprocessing,
            reduction=reduction,
        )
    if path.parent == source.parent:
        write_index(path.parent)
    shape = "x".join(str(n) for n in facts["input_shape"])
    if uint8:
        batch, channels, height, width = facts["input_shape"]
        shape = f"{batch}x{height}x{width}x{channels} of 8 bits"
    done = "Replaced" if replaced else "Wrote"
    print(
        f"{done} {path}: {facts['bytes'] / 1e6:.2f} MB{_in_float(facts)}, input {shape}, free "
        f"{', '.join(facts['dynamic'])}, differs from the network by {_difference(facts, uint8)} in a trial "
        f"on {f'pictures of {calibration}' if calibration is not None else 'random images'}"
    )


def _unusable(
    format: str, precision: Precision, calibration: str | None, keep_float: list[str] | None
) -> str | None:
    """What is wrong with the options of the precision; None if nothing is."""
    if precision != "float32" and format == "torch":
        return (
            f"precision {precision} is for --format onnx and openvino: leave it out, or choose one of these."
        )
    if precision == "int8" and calibration is None:
        return "precision int8 needs --calibration, a folder of pictures such as the network will see."
    if precision == "float32" and (calibration is not None or keep_float):
        option = "calibration" if calibration is not None else "keep_float"
        return f"{option} is for --precision int8{' or fp16' * (option != 'calibration')}: leave it out."
    return None


def _calibration(model: TorchModel, folder: str) -> list[Tensor]:
    """Inputs for pictures of a folder; warns where they can't stand for what the network will see."""
    pictures = model_inputs(model, folder, _MOST_PICTURES)
    plain = sum(bool((picture == picture[..., :1, :1]).all()) for picture in pictures)
    if plain == len(pictures):
        raise UserError(
            f"calibration {folder} has pictures of a single colour alone: give pictures such as the network "
            "will see."
        )
    if (told := len(pictures) - plain) < _FEW_PICTURES:
        warnings.warn(
            f"calibration {folder} has {told} pictures of more than one colour: the file may differ more on "
            f"others than what is told; give {_FEW_PICTURES} or more.",
            stacklevel=2,
        )
    return pictures


def _reduction(
    precision: Literal["fp16", "int8"], pictures: list[Tensor], keep_float: list[str]
) -> Reduction:
    """The reduction that takes ranges from four of five pictures, and is judged on the others."""
    held_out = pictures[4::5] or pictures
    calibration = [picture for n, picture in enumerate(pictures) if n % 5 != 4]
    return Reduction(precision, calibration, held_out, keep_float)


def _in_float(facts: Mapping[str, Any]) -> str:
    return f" ({facts['float_bytes'] / 1e6:.2f} in float32)" if "float_bytes" in facts else ""


def _difference(facts: Mapping[str, Any], uint8: bool) -> str:
    if "mean_difference" in facts:
        mean, largest = facts["mean_difference"], facts["max_difference"]
        return f"{mean:.1e} on average, at most {largest:.1e} (pixels in [-1, 1])"
    if uint8:
        return f"at most {facts['max_difference']:.0f} grey levels"
    return f"at most {facts['max_difference']:.1e}"


def beside(path: Path, network: str, ending: str) -> Path:
    """The default path of an exported network, different for each network of a file.

    For `last.ckpt` the student is `last.onnx`, the teacher `last_teacher.onnx`, CycleGAN's are
    `last_AtoB.onnx` and `last_BtoA.onnx`.
    """
    match = re.fullmatch(r"(?:student\.|networks\.|(teacher)\.)?generator(?:_([AB]to[AB]))?", network)
    owner, direction = match.groups("") if match else (network, "")
    stem = path.stem.removesuffix(f"_{direction}") if direction else path.stem
    return path.with_name(fitting("_".join(filter(None, (stem, owner, direction))), ending))
