"""Small models: a compressed network as a plain state dict, with a JSON description beside it."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_gancompress.checkpoints.files import is_state_dict, read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path, write_files
from lightning_gancompress.networks import BatchNorm, NetworkSpec, channel_widths
from lightning_gancompress.networks.images import read_preprocessing
from lightning_gancompress.schema import items, read_json, shown

VERSION = 1


def save_small(
    network: nn.Module,
    spec: NetworkSpec,
    path: str | Path,
    *,
    preprocessing: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write `network` to `path` and its description to the same name with `.json`.

    Args:
        network: Network to save; its channel widths are written into the description.
        spec: Class and arguments of the network.
        path: File to write; ends in `.pth`.
        preprocessing: How images become its input, in plain types.
        provenance: Policy, budget, versions and so on, in plain types.

    Raises:
        UserError: When the files can't be written.
    """
    path = user_path(path)
    if path.suffix != ".pth":
        raise UserError(f"A small model goes into a .pth file, not {path}: name one.")
    description = {
        "version": VERSION,
        "network": dataclasses.replace(spec, widths=channel_widths(network)).to_dict(),
        "preprocessing": preprocessing,
        "provenance": provenance,
    }
    weights = io.BytesIO()
    torch.save(
        {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}, weights
    )
    text = json.dumps(description, indent=2) + "\n"
    write_files({path: weights.getvalue(), path.with_suffix(".json"): text.encode()})


def load_small(
    path: str | Path, *, batch_norm: BatchNorm | None = None, architecture: nn.Module | None = None
) -> tuple[nn.Module, NetworkSpec, dict[str, Any]]:
    """Return the network in eval mode, its spec, and the whole description.

    Args:
        path: The `.pth` file, which has its `.json` beside it.
        batch_norm: Statistics of the batch norms in place of the recorded choice, or None.
        architecture: A network of the same class and arguments before pruning, where the description lacks
            the arguments.

    Raises:
        UserError: When one of the two files is missing, damaged or not for the other.
    """
    path = user_path(path)
    tensors = read_torch(path)
    description = read_description(path.with_suffix(".json"))
    if not is_state_dict(tensors):
        raise UserError(
            f"{path} holds more than tensors by name: copy it again from where the model was saved."
        )
    try:
        spec = NetworkSpec.from_dict(description.get("network")).reading(batch_norm)
        return spec.build(tensors, architecture).eval(), spec, description
    except UserError as error:
        raise UserError(f"{path} and the .json beside it don't make a network: {error}") from error


def read_description(path: Path) -> dict[str, Any]:
    """The description of a small model; `NetworkSpec.from_dict` checks the entry of the network.

    Raises:
        UserError: The file is missing, damaged, or of another version.
    """
    try:
        description = read_json(path)
        version = description.get("version") if isinstance(description, dict) else None
        if version == VERSION:
            return {
                **description,
                "preprocessing": read_preprocessing(description.get("preprocessing", {})),
                "provenance": dict(items(description.get("provenance", {}), "provenance")),
            }
    except OSError as error:
        raise UserError(
            f"{path}, which describes the network beside it, can't be read: {error.strerror}."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}): copy it again from where the model was saved."
        ) from error
    raise UserError(
        f"{path} has format version {shown(version)}, and this release reads version {VERSION}: "
        "save the model again, or install the release that wrote it."
    )
