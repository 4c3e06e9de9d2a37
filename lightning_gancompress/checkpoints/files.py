"""Reading of tensor files, with errors that name the file and the remedy."""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.metadata import SAFETENSORS, safetensors_metadata

_ACCESS = (FileNotFoundError, IsADirectoryError, PermissionError)
DEEPEST = 64  # levels of tables and lists in a file
SMALL = 2**24  # elements of a tensor that takes any shape: 64 MB


def read_torch(path: Path) -> Any:
    """Return the content of a file of `torch.save`, tensors and plain types, on the CPU. Runs no code.

    Of a safetensors file its tensors by name.

    Raises:
        UserError: When the file is missing, damaged, or holds other objects.
    """
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the errors below are more precise
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _ACCESS as error:
        raise _no_access(path, error) from error
    except Exception as error:  # a damaged file can raise any type
        if _holds_objects(path, error):
            raise UserError(
                f"{path} contains more than tensors (Python objects, which could run code), so it was not "
                "loaded. If you trust it, load it with torch.load(path, 'cpu', weights_only=False) and save "
                "only the network's state_dict() with torch.save."
            ) from error
        raise UserError(f"{path} {_diagnosis(path)}") from error
    if fault := _fault(content):
        raise UserError(f"{path} holds {fault}: copy or download it again.")
    return content


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, without reading its tensors.

    Raises:
        UserError: The file is missing or damaged.
    """
    with _told(path):
        return safetensors_metadata(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with _told(path):
        path.open("rb").close()  # whose errors say more
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Context in which errors of the package safetensors are one sentence."""
    try:
        yield
    except _ACCESS as error:
        raise _no_access(path, error) from error
    except Exception as error:  # its errors, and torch's on types and sizes that it lacks
        raise UserError(
            f"{path} is damaged, or no safetensors file ({first_line(error)[:200]}): copy or download it "
            "again."
        ) from error


def _no_access(path: Path, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"There is no file {path}: check the path.")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{path} is a folder: name the checkpoint file inside it.")
    return UserError(f"{path} can't be read: {error.strerror}. Ask for read access.")


def is_state_dict(content: Any) -> bool:
    """Whether something is a table of tensors by name."""
    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _fault(content: Any) -> str:
    """What makes the content of a file unusable: depth, or tensors that are not whole; else empty."""
    level = [content]
    for _ in range(DEEPEST):
        for value in level:
            if isinstance(value, Tensor) and not _whole(value):
                return "a tensor without the numbers that its shape needs"
        level = [
            inner
            for value in level
            if isinstance(value, Mapping | list | tuple | set)
            for inner in (value.values() if isinstance(value, Mapping) else value)
        ]
        if not level:
            return ""
    return f"tables within tables, more than {DEEPEST} deep"


def _whole(tensor: Tensor) -> bool:
    """Whether a tensor is dense, on the CPU, and has a number for each element unless it is `SMALL`."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.numel() <= max(SMALL, tensor.untyped_storage().nbytes() // tensor.element_size())


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one network, also if they are under `state_dict` or have the prefix `module.`.

    Raises:
        UserError: When the file can't be read or holds no state dict.
    """
    content = read_torch(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    pairs = state.items() if isinstance(state, Mapping) else ()
    tensors = {str(key).removeprefix("module."): value for key, value in pairs if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no state dict: save the network's state_dict().")
    return tensors


def _diagnosis(path: Path) -> str:
    """Return the kind of a file that torch.load can't read, and the remedy."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in names:
            return (
                "is a TorchScript program: save the tensors in it, "
                "torch.save(torch.jit.load(path, 'cpu').state_dict(), ...)."
            )
        if names & {"archive_format", "serialized_exported_program.json"}:  # the latter of torch 2.6
            return (
                "is a torch.export program: save the tensors in it, "
                "torch.save(dict(torch.export.load(path).state_dict), ...)."
            )
    if path.suffix in {".onnx", ".json"}:
        return "holds no weights that torch reads: give the .pth beside it, or the run's checkpoint."
    return "is truncated or was not written by torch.save: copy or download it again."


def _holds_objects(path: Path, error: Exception) -> bool:
    """Whether a file is whole but holds Python objects, found without running anything in it."""
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
        return True
    try:
        with path.open("rb") as file:
            operations = [operation.name for operation, *_ in pickletools.genops(file)]
    except Exception:  # no pickle, or a truncated one
        return False
    return any("GLOBAL" in name for name in operations)
