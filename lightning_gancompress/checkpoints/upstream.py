"""Networks that pytorch-CycleGAN-and-pix2pix, or a fork of it, has trained: `latest_net_G.pth` and its kind.

The files are plain state dicts. The architecture is read off the tensors' names and shapes; a `train_opt.txt`
beside the file adds what tensors can't tell.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import BatchNorm, NetworkSpec

Role = Literal["generator", "discriminator"]

# what pytorch-CycleGAN-and-pix2pix calls the networks in its files
_LETTERS = {
    "generator": "G",
    "discriminator": "D",
    "generator_AtoB": "G_A",
    "generator_BtoA": "G_B",
    "discriminator_AtoB": "D_A",
    "discriminator_BtoA": "D_B",
}
_NAME = re.compile(r"(?<=_net_)([GD](?:_[AB])?)(?=\.pth$)")


def load_upstream(
    path: str | Path, *, batch_norm: BatchNorm = "running", role: Role | None = None
) -> tuple[nn.Module, NetworkSpec]:
    """Load a generator or discriminator in eval mode.

    Dropout acts in training only: it matters to a fine-tuning, not to a picture made in eval mode. A ResNet
    has it if its keys say so and `train_opt.txt` does not say `no_dropout: True` (forks insert a dropout of
    rate 0, which has the same keys). A U-Net's keys don't tell: it has dropout, as upstream trains by
    default, unless `train_opt.txt` says `no_dropout: True`.

    Args:
        path: `latest_net_G.pth`, `latest_net_D.pth` or the like.
        batch_norm: "running" reads batch norms in eval mode; "image" gives the picture that upstream's test
            script makes, from the statistics of the one image, here without its random dropout.
        role: What the network must be; None accepts either.

    Raises:
        UserError: When the file is unreadable, or not of an architecture known here, or of the other role.
    """
    return network_from_tensors(read_torch(Path(path)), Path(path), batch_norm, role)


def network_from_tensors(
    content: Any, path: Path, batch_norm: BatchNorm = "running", role: Role | None = None
) -> tuple[nn.Module, NetworkSpec]:
    """Do `load_upstream` with the `content` that `path` had."""
    try:
        tensors = _clean(content)
        kind, init_args = _architecture(tensors, read_options(path))
        found = "generator" if kind.endswith("Generator") else "discriminator"
        if role not in (None, found):
            raise UserError(f"it holds a {found} ({kind}) where a {role} is needed. Name the {role}'s file.")
        spec = NetworkSpec(f"lightning_gancompress.networks.{kind}", init_args, batch_norm)
        if kind == "ResnetGenerator" and not init_args["dropout"]:
            tensors = _without_dropout_index(tensors)
        return spec.build(tensors).eval(), spec
    except UserError as error:
        raise UserError(f"{path} can't be loaded: {error}") from error


def sibling(path: Path, role: str) -> Path:
    """Return where upstream writes the network `role` of the model that `path` holds one network of.

    Args:
        path: `latest_net_G.pth`, `40_net_D_A.pth` or the like. Another name, such as a checkpoint's, comes
            back as it is: such a file holds every network itself.
        role: `generator` or `discriminator`, for CycleGAN with `_AtoB` or `_BtoA` behind it.
    """
    return path.with_name(_NAME.sub(_LETTERS[role], path.name))


def read_options(path: Path) -> dict[str, str]:
    """Return the options in the `train_opt.txt` beside `path`; none when there is no such file."""
    file = path.with_name("train_opt.txt")
    text = file.read_text(errors="replace") if file.is_file() else ""
    return dict(re.findall(r"^ *(\w+): (.*?)\s*(?:\[default: .*\])?$", text, re.MULTILINE))


def upstream_preprocessing(path: str | Path) -> dict[str, str | int]:
    """Return how `train_opt.txt` beside the network at `path`, if any, says its images were prepared."""
    options = read_options(Path(path))
    names = {"input_nc": "in_channels", "output_nc": "out_channels", "direction": "direction"}
    names |= {name: name for name in ("preprocess", "load_size", "crop_size")}
    found = {ours: options[theirs] for theirs, ours in names.items() if theirs in options}
    return {name: int(value) if value.isdigit() else value for name, value in found.items()}


def _clean(content: Any) -> dict[str, Tensor]:
    """Check that `content` is a state dict; drop the wrapper's prefix and what profilers left in it."""
    if not isinstance(content, Mapping) or not content:
        raise UserError("it is empty or no state dict. Save the network's state_dict().")
    strange = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise UserError(
            f"{', '.join(strange[:3])} in it is no tensor, so it is no state dict. "
            "Save the state_dict() of one network."
        )
    names = {key: re.sub(r"^(module\.)+", "", str(key)) for key in content}
    profiler = ("total_ops", "total_params")
    return {name: content[key] for key, name in names.items() if name.rpartition(".")[2] not in profiler}


def _architecture(tensors: dict[str, Tensor], options: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the class and its arguments. Where tensors and options differ, the tensors are right."""
    if options.get("norm") == "none":
        raise UserError("train_opt.txt says `norm: none`, and networks without norms are not supported.")
    dropout = options.get("no_dropout") != "True"
    blocks = {int(n) for n in _matches(r"model\.(\d+)\.conv_block\..*", tensors)}
    if blocks:
        last = max(int(n) for n in _matches(r"model\.(\d+)\.weight", tensors) or ["0"])
        ngf, in_channels = _shape(tensors, "model.1.weight")
        out_channels, _ = _shape(tensors, f"model.{last}.weight")
        return "ResnetGenerator", {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "ngf": ngf,
            "n_blocks": len(blocks),
            "norm": _norm(tensors, "model.1"),
            "dropout": dropout and not _matches(r"model\.\d+\.conv_block\.(5)\.weight", tensors),
        }
    if "model.model.0.weight" in tensors:
        ngf, in_channels = _shape(tensors, "model.model.0.weight")
        _, out_channels = _shape(tensors, "model.model.3.weight")
        return "UnetGenerator", {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "ngf": ngf,
            "n_downs": 1 + len(_matches(r"model\.model\.1\.((?:model\.3\.)*)model\.1\.weight", tensors)),
            "norm": _norm(tensors, "model.model.0"),
            "dropout": dropout,
        }
    if "net.0.weight" in tensors:
        ndf, in_channels = _shape(tensors, "net.0.weight")
        return "PixelDiscriminator", {"in_channels": in_channels, "ndf": ndf, "norm": _norm(tensors, "net.2")}
    if "model.0.weight" in tensors:
        ndf, in_channels = _shape(tensors, "model.0.weight")
        convolutions = [key for key in tensors if key.endswith(".weight") and tensors[key].ndim == 4]
        norm = _norm(tensors, "model.2")
        return "PatchDiscriminator", {
            "in_channels": in_channels,
            "ndf": ndf,
            "n_layers": len(convolutions) - 2,
            "norm": norm,
        }
    raise UserError(
        f"its keys ({', '.join(list(tensors)[:3])}, ...) are of no architecture known here. Known are the "
        "ResNet and U-Net generators and the patch and pixel discriminators of pytorch-CycleGAN-and-pix2pix."
    )


def _matches(pattern: str, tensors: dict[str, Tensor]) -> list[str]:
    """Return the first group of `pattern` for each key that it fits as a whole."""
    return [match[1] for match in map(re.compile(pattern).fullmatch, tensors) if match]


def _shape(tensors: dict[str, Tensor], key: str) -> tuple[int, int]:
    """Return the two channel counts of a convolution's weight."""
    if key not in tensors or tensors[key].ndim != 4:
        raise UserError(
            f"{key}, which should be the weight of a convolution, is missing or of another shape."
        )
    return tensors[key].shape[0], tensors[key].shape[1]


def _norm(tensors: dict[str, Tensor], convolution: str) -> str:
    """A convolution has a bias just where an instance norm, which brings none, follows."""
    return "instance" if f"{convolution}.bias" in tensors else "batch"


def _without_dropout_index(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Number the second half of each ResNet block as if no dropout, which has index 4, came before it."""
    if _matches(r".*\.conv_block\.(5)\.weight", tensors):
        return tensors
    shift = {"conv_block.6": "conv_block.5", "conv_block.7": "conv_block.6"}
    return {
        re.sub(r"conv_block\.[67]", lambda old: shift[old[0]], key): value for key, value in tensors.items()
    }
