"""Small models: a compressed network with its description, in a file or two.

A `.safetensors` file holds both, the description as JSON in its metadata. A `.pth` file is a plain state dict
of torch, with the description beside it, in the `.json` of the same name.
"""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_gancompress.checkpoints.files import is_state_dict, read_metadata, read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path, write_files
from lightning_gancompress.metadata import KEY, SAFETENSORS, has_description
from lightning_gancompress.networks import BatchNorm, NetworkSpec, channel_widths
from lightning_gancompress.networks.images import read_preprocessing
from lightning_gancompress.schema import items, parse_json, read_json, shown

VERSION = 1


def save_small(
    network: nn.Module,
    spec: NetworkSpec,
    path: str | Path,
    *,
    preprocessing: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write `network` and its description to `path`, or to that and the same name with `.json`.

    Args:
        network: Network to save; its channel widths are written into the description.
        spec: Class and arguments of the network.
        path: File to write; ends in `.safetensors`, or in `.pth`.
        preprocessing: How images become its input, in plain types.
        provenance: Policy, budget, versions and so on, in plain types.

    Raises:
        UserError: When the files can't be written.
    """
    path = user_path(path)
    if path.suffix not in (".pth", SAFETENSORS):
        raise UserError(f"A small model goes into a .safetensors or .pth file, not {path}: name one.")
    description = {
        "version": VERSION,
        "network": dataclasses.replace(spec, widths=channel_widths(network)).to_dict(),
        "preprocessing": preprocessing,
        "provenance": provenance,
    }
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    if path.suffix == SAFETENSORS:
        from safetensors.torch import save

        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_files({path: save(whole, {"format": "pt", KEY: json.dumps(description)})})
        return
    weights = io.BytesIO()
    torch.save(tensors, weights)
    text = json.dumps(description, indent=2) + "\n"
    write_files({path: weights.getvalue(), path.with_suffix(".json"): text.encode()})


def is_small_model(path: Path) -> bool:
    """Whether a file is a small model: a `.pth` beside a `.json`, or a `.safetensors` of this project."""
    pair = path.suffix == ".pth" and path.is_file() and path.with_suffix(".json").is_file()
    return pair or has_description(path)


def load_small(
    path: str | Path, *, batch_norm: BatchNorm | None = None, architecture: nn.Module | None = None
) -> tuple[nn.Module, NetworkSpec, dict[str, Any]]:
    """Return the network in eval mode, its spec, and the whole description.

    Args:
        path: The `.safetensors` file, or the `.pth`, which has its `.json` beside it.
        batch_norm: Statistics of the batch norms in place of the recorded choice, or None.
        architecture: A network of the same class and arguments before pruning, where the description lacks
            the arguments.

    Raises:
        UserError: When one of the two files is missing, damaged or not for the other.
    """
    path = user_path(path)
    tensors, description = read_torch(path), read_description(path)
    if not is_state_dict(tensors):
        raise UserError(
            f"{path} holds more than tensors by name: copy it again from where the model was saved."
        )
    try:
        spec = NetworkSpec.from_dict(description.get("network")).reading(batch_norm)
        return spec.build(tensors, architecture).eval(), spec, description
    except UserError as error:
        parts = f"{path} and the .json beside it don't" if path.suffix == ".pth" else f"{path} doesn't"
        raise UserError(f"{parts} make a network: {error}") from error


def read_description(model: Path) -> dict[str, Any]:
    """The description of a small model; `NetworkSpec.from_dict` checks the entry of the network.

    Args:
        model: The file with the tensors.

    Raises:
        UserError: The description is missing, damaged, or of another version.
    """
    path = model if model.suffix == SAFETENSORS else model.with_suffix(".json")
    try:
        if path is model:
            metadata = read_metadata(model)
            if KEY not in metadata:
                raise UserError(
                    f"{path} describes no network of this project: give a file that a run has written."
                )
            description = parse_json(metadata[KEY])
        else:
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
