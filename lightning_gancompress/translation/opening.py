"""Opening of model files of any kind."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.hub import model_file
from lightning_gancompress.networks import BatchNorm
from lightning_gancompress.options import Workers, checked
from lightning_gancompress.translation.model import ImageModel


@checked
def open_model(
    path: str | Path,
    device: str = "auto",
    threads: Workers = 0,
    network: str = "generator",
    batch_norm: BatchNorm | None = None,
    architecture: nn.Module | None = None,
) -> ImageModel:
    """Open a model file: ONNX, OpenVINO's `.xml`, or any that `load_generator` reads.

    Args:
        path: The file.
        device: `auto` is a CUDA GPU if there is one, else the CPU; or a name such as `cpu`, `cuda`, `mps`.
        threads: CPU threads; 0 for the runtime's default.
        network: See `load_generator`, for files that hold several; this and the rest are for them alone.
        batch_norm: Statistics of batch norms; see `load_generator`.
        architecture: A network of the same class and arguments, where the file lacks them.

    Raises:
        UserError: The file is missing, damaged, or holds something else.
    """
    path = model_file(path)
    if path.suffix.lower() not in (".onnx", ".xml"):
        from lightning_gancompress.translation.torch_model import TorchModel

        return TorchModel(path, device, threads, network, batch_norm, architecture)
    if not path.is_file():
        raise UserError(f"There is no file {path}: check the path.")
    if batch_norm is not None or architecture is not None or network != "generator":
        raise UserError(
            f"{path} holds one network as it runs: leave network, batch_norm and architecture out."
        )
    if path.suffix.lower() == ".xml":
        from lightning_gancompress.translation.openvino_model import OpenVinoModel

        return OpenVinoModel(path, device, threads)
    from lightning_gancompress.translation.onnx_model import OnnxModel

    return OnnxModel(path, device, threads)
