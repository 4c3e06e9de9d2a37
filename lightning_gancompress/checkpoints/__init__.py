"""Loading of networks from this project's and other projects' files. Imports no Lightning."""

from pathlib import Path

from torch import Tensor, nn

from lightning_gancompress.checkpoints.contents import network_tensors, side_in
from lightning_gancompress.checkpoints.dialects import under_own_names
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import Header, is_training_checkpoint
from lightning_gancompress.checkpoints.small import is_small_model, load_small, save_small
from lightning_gancompress.checkpoints.training import load_networks, network_from_checkpoint
from lightning_gancompress.checkpoints.upstream import (
    direction_in_name,
    load_upstream,
    network_from_tensors,
    require_role,
    sibling,
    upstream_preprocessing,
)
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.hub import model_file
from lightning_gancompress.networks import BatchNorm, NetworkSpec
from lightning_gancompress.options import checked
from lightning_gancompress.tasks import Side

__all__ = [
    "Header",
    "load_generator",
    "load_network",
    "load_networks",
    "load_small",
    "load_upstream",
    "save_small",
    "sibling",
    "tensors_for",
    "upstream_preprocessing",
]


@checked
def load_generator(
    path: str | Path,
    *,
    batch_norm: BatchNorm | None = None,
    network: str = "generator",
    architecture: nn.Module | None = None,
) -> nn.Module:
    """Load a generator, ready to translate images: (B, C, H, W) in [-1, 1] to the same range, in eval mode.

    Loads no Lightning and runs no code from the file.

    Args:
        path: A small model (`.safetensors`, or `.pth` with its `.json` beside it), a training checkpoint of
            this project (`.ckpt`), a `latest_net_G.pth` of pytorch-CycleGAN-and-pix2pix, a state dict of the
            same layers under other names that show the layout, or a state dict of an `architecture`. A state
            dict may be an entry of a larger file. `hf://user/model` downloads `generator.safetensors` of a
            model on the Hugging Face Hub, `hf://user/model/FILE` another.
        batch_norm: Statistics that batch norms use: "running" those of the training, "image" those of each
            single image, as upstream's test script does. None is as recorded, and "running" for upstream
            files.
        network: Name of the network: in a training checkpoint its role, such as "generator_AtoB" for
            CycleGAN, or "teacher.generator" for the uncompressed one; in other files its key.
        architecture: A network with the class and arguments of the one in the file, before any pruning;
            needed where the file does not record them. The tensors of one of
            `lightning_gancompress.networks` may have other names in the file, in the same order. It is not
            changed.

    Raises:
        UserError: When the file is missing, damaged, or holds something else.
    """
    return load_network(path, network, batch_norm, architecture)[0]


def load_network(
    path: str | Path,
    network: str = "generator",
    batch_norm: BatchNorm | None = None,
    architecture: nn.Module | None = None,
) -> tuple[nn.Module, NetworkSpec]:
    """Load a generator or a discriminator, with its spec, from any file that `load_generator` reads.

    Raises:
        UserError: When the file is missing, damaged, or holds something else.
    """
    path = model_file(path)
    _require_direction(path, network)
    if is_small_model(path):
        return _small(path, network, batch_norm, architecture)
    content = read_torch(path)
    if is_training_checkpoint(content):
        return network_from_checkpoint(content, path, network, batch_norm, architecture)
    try:
        return network_from_tensors(content, path, batch_norm or "running", network, architecture)
    except UserError as error:
        lost = path.with_suffix(".json")
        if path.suffix == ".pth" and path.stem.startswith(tuple(Side)) and not lost.exists():
            raise UserError(
                f"{lost.name}, which describes the network in {path}, is missing: copy it from where the "
                f"model was saved. Without it, {error}"
            ) from error
        raise


def tensors_for(network: nn.Module, path: str | Path, role: str) -> dict[str, Tensor]:
    """Return the tensors in a file by the names that they have in `network`.

    Args:
        network: A network of the same class and arguments.
        path: A file that holds a state dict; for networks of this project the names in it may differ.
        role: Role of the network, to choose from several in the file.

    Raises:
        UserError: When the file can't be read or holds no such network.
    """
    try:
        tensors = network_tensors(read_torch(user_path(path)), role, network.state_dict())
        return under_own_names(network, tensors)
    except UserError as error:
        raise UserError(f"{path} can't be loaded: {error}") from error


def _small(
    path: Path, network: str, batch_norm: BatchNorm | None, architecture: nn.Module | None
) -> tuple[nn.Module, NetworkSpec]:
    small, spec, _ = load_small(path, batch_norm=batch_norm, architecture=architecture)
    try:
        require_role(spec.class_path, _side(network))
    except UserError as error:
        raise UserError(f"{path} can't be loaded: {error}") from error
    return small, spec


def _side(network: str) -> Side:
    return side_in(network) or Side.GENERATOR


def _require_direction(path: Path, network: str) -> None:
    direction, needed = direction_in_name(path), network.rpartition("_")[2]
    if direction and needed in ("AtoB", "BtoA") and direction != needed:
        raise UserError(
            f"{path} is a network of {direction} by its name, where {network} is needed: name the file of "
            f"that one, or choose the direction {direction}."
        )
