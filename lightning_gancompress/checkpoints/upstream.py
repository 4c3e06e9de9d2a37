"""Loading of files of pytorch-CycleGAN-and-pix2pix and its forks, such as `latest_net_G.pth`.

The files are plain state dicts. The architecture follows from the names and shapes of the tensors; options
that tensors do not show, such as dropout, are read from a `train_opt.txt` beside the file. State dicts with
other names are read by `dialects`.
"""

import logging
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.checkpoints.contents import network_tensors, side_in
from lightning_gancompress.checkpoints.dialects import evident_fit, under_own_names
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.networks import BatchNorm, NetworkSpec, channel_widths
from lightning_gancompress.networks.images import read_preprocessing
from lightning_gancompress.tasks import Side

_log = logging.getLogger(__name__)
_NETWORKS = "lightning_gancompress.networks"
# upstream's names of the networks in its file names
_LETTERS = {
    "generator": "G",
    "discriminator": "D",
    "generator_AtoB": "G_A",
    "generator_BtoA": "G_B",
    "discriminator_AtoB": "D_A",
    "discriminator_BtoA": "D_B",
}
_NAME = re.compile(r"(?<=_net_)([GD](?:_[AB])?)(?=\.pth$)")
# the second convolution of a ResNet block has this index where no dropout comes before it, else 6
_WITHOUT_DROPOUT = r".*\.conv_block\.(5)\.(?:conv\.0\.)?weight"


def load_upstream(
    path: str | Path, *, batch_norm: BatchNorm = "running", role: Side | None = None
) -> tuple[nn.Module, NetworkSpec]:
    """Load a generator or discriminator in eval mode.

    Dropout changes a fine-tuning, but no image in eval mode. It is read from `train_opt.txt`. Without that
    file the network has dropout if its keys allow for it, with two exceptions: files named as CycleGAN's
    (`latest_net_G_A.pth`), which upstream trains without, and networks of separable convolutions, where forks
    insert a dropout of rate 0, which has the same keys.

    Args:
        path: `latest_net_G.pth`, `latest_net_D_A.pth` or the like.
        batch_norm: "running" uses the running statistics; "image" those of each single image, as upstream's
            test script does, here without its random dropout.
        role: Required side of the network; None accepts either.

    Raises:
        UserError: When the file is unreadable, of an unknown architecture, or of the other side.
    """
    path = user_path(path)
    return network_from_tensors(read_torch(path), path, batch_norm, role or "")


def network_from_tensors(
    content: Any,
    path: Path,
    batch_norm: BatchNorm = "running",
    network: str = "",
    architecture: nn.Module | None = None,
) -> tuple[nn.Module, NetworkSpec]:
    """Build a network from the `content` of a file, as `load_upstream`, or with the class of `architecture`.

    Args:
        content: Content of the file.
        path: Path of the file, for messages and `train_opt.txt`.
        batch_norm: See `load_upstream`.
        network: Role of the network, or its name in the file if there are several; "" accepts either side.
        architecture: A network of the same class and arguments before pruning, or None.
    """
    try:
        own = () if architecture is None else architecture.state_dict()
        tensors = network_tensors(content, network, own)
        if architecture is not None:
            spec = NetworkSpec.of(architecture).reading(batch_norm)
            return spec.build(under_own_names(architecture, tensors), architecture).eval(), spec
        try:
            built, spec, note = *_upstream(tensors, path, batch_norm), ""
        except UserError as error:
            built, spec, note = _dialect(tensors, path, batch_norm, error)
        require_role(spec.class_path, side_in(network))
    except UserError as error:
        raise UserError(f"{path} can't be loaded: {error}") from error
    if note:
        _log.warning("%s %s", path, note)
    return built.eval(), spec


def _upstream(tensors: dict[str, Tensor], path: Path, batch_norm: BatchNorm) -> tuple[nn.Module, NetworkSpec]:
    kind, init_args = _architecture(tensors)
    if "dropout" in init_args:
        init_args["dropout"] &= _trained_with_dropout(path, kind)
        # a mobile ResNet has the layer even where it drops nothing
        tensors = _renumbered(tensors, kind == "MobileResnetGenerator" or init_args["dropout"])
    spec = NetworkSpec(f"{_NETWORKS}.{kind}", init_args, batch_norm)
    spec = _with_widths_of(tensors, spec)
    return spec.build(tensors), spec


def _dialect(
    tensors: dict[str, Tensor], path: Path, batch_norm: BatchNorm, error: UserError
) -> tuple[nn.Module, NetworkSpec, str]:
    """Build a network from tensors of other names if the fit is evident; also return the assumptions made."""
    fit = evident_fit(tensors, error)
    if fit.kind == "UnetGenerator":  # a ResNet's names show its dropout
        fit.init_args["dropout"] = _trained_with_dropout(path, fit.kind)
    spec = NetworkSpec(f"{_NETWORKS}.{fit.kind}", fit.init_args, batch_norm)
    return spec.build(fit.tensors), spec, f"is read as {fit.note}"


def require_role(class_path: str, role: Side | None) -> None:
    """Raise a UserError if the name of a class shows that its network is of the other side."""
    kind = class_path.rpartition(".")[2]
    actual = next((side for side in Side if kind.endswith(side.title())), role)
    if role is not None and actual != role:
        raise UserError(f"it holds a {actual} ({kind}) where a {role} is needed. Name the {role}'s file.")


def sibling(path: Path, role: str) -> Path:
    """Return the path at which upstream writes the network `role` of the same model.

    Args:
        path: File of one network: `latest_net_G.pth`, `40_net_D_A.pth` or the like. A path of another form,
            such as a checkpoint's, is returned unchanged, since that file holds all networks.
        role: `generator` or `discriminator`, for CycleGAN with `_AtoB` or `_BtoA` behind it.
    """
    return path.with_name(_NAME.sub(_LETTERS[role], path.name))


def direction_in_name(path: Path) -> str | None:
    """Return the direction, "AtoB" or "BtoA", that the name of a file shows; None if it shows none."""
    source = re.search(r"_(?:net_[GD]_([AB])|([AB])to[AB])\.(?:pth|safetensors)$", path.name)
    return {"A": "AtoB", "B": "BtoA"}[source[1] or source[2]] if source else None


def read_options(path: Path) -> dict[str, str]:
    """Return the options in the `train_opt.txt` beside `path`; none when there is no such file."""
    file = path.with_name("train_opt.txt")
    text = file.read_text(errors="replace") if file.is_file() else ""
    return dict(re.findall(r"^ *(\w+): (.*?)\s*(?:\[default: .*\])?$", text, re.MULTILINE))


def upstream_preprocessing(path: str | Path) -> dict[str, Any]:
    """Return the preprocessing of images in the `train_opt.txt` beside `path`; empty without that file.

    Raises:
        UserError: A size or a number of channels there is none.
    """
    options = read_options(user_path(path))
    names = {"input_nc": "in_channels", "output_nc": "out_channels", "direction": "direction"}
    names |= {name: name for name in ("preprocess", "load_size", "crop_size")}
    values = {name: options[theirs] for theirs, name in names.items() if theirs in options}
    record = {name: int(v) if re.fullmatch(r"[0-9]{1,9}", v) else v for name, v in values.items()}
    try:
        return read_preprocessing(record, "train_opt.txt")
    except ValueError as error:
        raise UserError(f"{Path(path).with_name('train_opt.txt')}: {error}: mend or remove it.") from error


def _architecture(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Return class and arguments, with dropout if the keys allow for it."""
    blocks = {int(n) for n in _matches(r"model\.(\d+)\.conv_block\..*", tensors)}
    if blocks:
        last = max(int(n) for n in _matches(r"model\.(\d+)\.weight", tensors) or ["0"])
        ngf, in_channels = _shape(tensors, "model.1.weight")
        separable = any(".conv.0." in key for key in tensors)
        return "MobileResnetGenerator" if separable else "ResnetGenerator", {
            "in_channels": in_channels,
            "out_channels": _shape(tensors, f"model.{last}.weight")[0],
            "ngf": ngf,
            "n_blocks": len(blocks),
            "norm": _norm(tensors, "model.1"),
            "dropout": not _matches(_WITHOUT_DROPOUT, tensors),
        }
    if "model.model.0.weight" in tensors:
        ngf, in_channels = _shape(tensors, "model.model.0.weight")
        return "UnetGenerator", {
            "in_channels": in_channels,
            "out_channels": _shape(tensors, "model.model.3.weight")[1],
            "ngf": ngf,
            "n_downs": 1 + len(_matches(r"model\.model\.1\.((?:model\.3\.)*)model\.1\.weight", tensors)),
            "norm": _norm(tensors, "model.model.0"),
            "dropout": True,
        }
    if "net.0.weight" in tensors:
        ndf, in_channels = _shape(tensors, "net.0.weight")
        return "PixelDiscriminator", {"in_channels": in_channels, "ndf": ndf, "norm": _norm(tensors, "net.2")}
    if "model.0.weight" in tensors:
        ndf, in_channels = _shape(tensors, "model.0.weight")
        convolutions = [key for key in tensors if key.endswith(".weight") and tensors[key].ndim == 4]
        return "PatchDiscriminator", {
            "in_channels": in_channels,
            "ndf": ndf,
            "n_layers": len(convolutions) - 2,
            "norm": _norm(tensors, "model.2"),
        }
    raise UserError(
        f"its keys ({', '.join(list(tensors)[:3])}, ...) are of no architecture known here. Known are the "
        "ResNet, mobile ResNet and U-Net generators and the patch and pixel discriminators of "
        "pytorch-CycleGAN-and-pix2pix and its forks. For any other, give its class, as "
        "model.generator.class_path in a configuration or as architecture=... in Python."
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
    """Name of the norm: upstream's convolutions have a bias only before instance norms."""
    if f"{convolution}.bias" in tensors:
        return "instance"
    norms = [key for key, tensor in tensors.items() if key.endswith(".weight") and tensor.ndim == 1]
    return "batch" if norms else "none"


def _trained_with_dropout(path: Path, kind: str) -> bool:
    options = read_options(path)
    with suppress(KeyError, ValueError):
        return float(options["dropout_rate"]) > 0
    without = direction_in_name(path) is not None or kind == "MobileResnetGenerator"
    return options.get("no_dropout", str(without)) != "True"


def _renumbered(tensors: dict[str, Tensor], dropout: bool) -> dict[str, Tensor]:
    """Renumber the second half of each ResNet block, which follows the dropout at index 4 if there is one."""
    without = bool(_matches(_WITHOUT_DROPOUT, tensors))
    step = int(dropout) - int(not without)
    half = r"(?<=\.conv_block\.)([567])(?=\.)"
    return {re.sub(half, lambda n: str(int(n[1]) + step), key): value for key, value in tensors.items()}


def _with_widths_of(tensors: dict[str, Tensor], spec: NetworkSpec) -> NetworkSpec:
    """Return the spec with the widths of the tensors, if these differ from the class's and are consistent.

    Files of compressed networks, such as GAN Compression's, have individual widths per layer.
    """
    with torch.device("meta"):
        usual = spec.build()
        widths = _widths(usual, tensors)
        slim = replace(spec, widths=widths)
        try:
            network = slim.build().eval()
            network(torch.zeros(1, (spec.init_args or {})["in_channels"], 1024, 1024))
        except RuntimeError:
            return spec  # building it will name the tensors that don't fit
    return spec if widths == channel_widths(usual) else slim


def _widths(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    """Return the channel widths of `tensors`; a norm without tensors has those of the layer before it."""
    widths, last = channel_widths(network), 0
    for name, usual in widths.items():
        if f"{name}.weight" not in tensors or tensors[f"{name}.weight"].ndim != 4:
            widths[name] = usual if len(usual) > 1 else [last]
            last = widths[name][:2][-1]
            continue
        first, second = tensors[f"{name}.weight"].shape[:2]
        if isinstance(network.get_submodule(name), nn.ConvTranspose2d):
            first, second = second, first
        widths[name] = [first] * 3 if len(usual) == 3 else [second, first]
        last = first
    return widths
