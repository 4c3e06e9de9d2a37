"""The command `export`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from lightning_gancompress.checkpoints import load_network
from lightning_gancompress.checkpoints.generators import recorded
from lightning_gancompress.errors import UserError
from lightning_gancompress.export import export_onnx, export_torch
from lightning_gancompress.files import fitting, require_writable, user_path
from lightning_gancompress.networks import BatchNorm, blank_image, image_channels, pixels
from lightning_gancompress.options import Pixels, checked
from lightning_gancompress.run_index import write_index

_ENDING = {"onnx": ".onnx", "torch": ".pt2"}


@checked
def export(
    ckpt_path: str,
    format: Literal["onnx", "torch"] = "onnx",
    output: str | None = None,
    size: Pixels | tuple[Pixels, Pixels] | None = None,
    dynamic_size: bool = False,
    optimize: bool = True,
    uint8: bool = False,
    batch_norm: BatchNorm | None = None,
    network: str = "generator",
) -> None:
    """Write a generator as ONNX or as a torch.export program, checked against the original.

    The recorded preprocessing is written into the file, as JSON: ONNX's metadata, torch's extra file
    `preprocessing`.

    Args:
        ckpt_path: A training checkpoint, a small model, or an upstream `latest_net_G.pth`.
        format: `onnx` for ONNX Runtime, `torch` for `torch.export.load`.
        output: File to write; None writes beside `ckpt_path`. An exported file that is there is replaced.
        size: Image size in pixels, or `[height, width]`; None is that of the training.
        dynamic_size: Let the ONNX file accept other sizes too.
        optimize: Write layers of the ONNX file in the form that is fastest on CPUs; false keeps those of the
            network, for other devices.
        uint8: Have the ONNX file read and give pixels of 8 bits, (batch, height, width, channels), so that
            who runs it need not know how the network reads images; for pictures of 1 or 3 channels.
        batch_norm: `image` for the statistics of each image, as upstream's test; None is as recorded.
        network: Network of a training checkpoint; `teacher.generator` for the uncompressed one,
            `generator_AtoB` or `generator_BtoA` for CycleGAN.
    """
    if dynamic_size and format == "torch":
        raise UserError("dynamic_size is for --format onnx; a torch program has a fixed size.")
    if uint8 and format == "torch":
        raise UserError("uint8 is for --format onnx; a torch program reads what its network reads.")
    source = user_path(ckpt_path)
    path = user_path(output) if output else beside(source, network, _ENDING[format])
    replaced = path.exists()
    if replaced and path.suffix not in _ENDING.values():
        raise UserError(
            f"output {path} exists and is no exported file: choose a name that ends in {_ENDING[format]}."
        )
    model, _ = load_network(source, network, batch_norm)
    preprocessing, phase = recorded(source)
    if phase == "search" and not network.startswith("teacher"):
        print(f"The search in {source} isn't over: this is the student cut by its masks, not fine-tuned yet.")
    require_writable(path.parent, "output")
    image = blank_image(model, size or pixels(preprocessing), image_channels(preprocessing))
    if format == "onnx":
        facts = export_onnx(
            model,
            path,
            image,
            dynamic_size=dynamic_size,
            optimize=optimize,
            preprocessing=preprocessing,
            uint8=uint8,
        )
    else:
        facts = export_torch(model, path, image, preprocessing=preprocessing)
    if path.parent == source.parent:
        write_index(path.parent)
    shape = "x".join(str(n) for n in facts["input_shape"])
    difference = f"{facts['max_difference']:.1e}"
    if uint8:
        batch, channels, height, width = facts["input_shape"]
        shape = f"{batch}x{height}x{width}x{channels} of 8 bits"
        difference = f"{facts['max_difference']:.0f} grey levels"
    done = "Replaced" if replaced else "Wrote"
    print(
        f"{done} {path}: {facts['bytes'] / 1e6:.2f} MB, input {shape}, free {', '.join(facts['dynamic'])}, "
        f"differs from the network by at most {difference}"
    )


def beside(path: Path, network: str, ending: str) -> Path:
    """The default path of an exported network, different for each network of a file.

    For `last.ckpt` the student is `last.onnx`, the teacher `last_teacher.onnx`, CycleGAN's are
    `last_AtoB.onnx` and `last_BtoA.onnx`.
    """
    match = re.fullmatch(r"(?:student\.|networks\.|(teacher)\.)?generator(?:_([AB]to[AB]))?", network)
    owner, direction = match.groups("") if match else (network, "")
    stem = path.stem.removesuffix(f"_{direction}") if direction else path.stem
    return path.with_name(fitting("_".join(filter(None, (stem, owner, direction))), ending))
