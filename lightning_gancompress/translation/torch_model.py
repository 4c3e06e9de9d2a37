"""Generators that torch runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_gancompress.checkpoints import load_network
from lightning_gancompress.checkpoints.generators import recorded_preprocessing
from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.export import torch_threads
from lightning_gancompress.networks import BatchNorm, blank_image, image_channels
from lightning_gancompress.networks.layers import Network
from lightning_gancompress.translation.model import UNKNOWN, ImageModel


class TorchModel(ImageModel):
    """A generator of any file that `load_generator` reads.

    Args:
        path: The file.
        device: Device of torch.
        threads: CPU threads; 0 for torch's default.
        network: See `load_generator`; the following too.
        batch_norm: Statistics of batch norms.
        architecture: A network of the same class and arguments, where the file lacks them.
    """

    runtime = "torch"

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        threads: int = 0,
        network: str = "generator",
        batch_norm: BatchNorm | None = None,
        architecture: nn.Module | None = None,
    ) -> None:
        self.network = load_network(path, network, batch_norm, architecture)[0].float()
        self.threads, self.device = threads, _device(device)
        record = recorded_preprocessing(path)
        multiple = self.network.size_multiple if isinstance(self.network, Network) else 1
        channels = record.get("in_channels") or blank_image(
            self.network, max(UNKNOWN, multiple), image_channels(record)
        ).size(1)
        super().__init__(path, record, channels)
        if isinstance(self.network, Network):
            self.multiple = multiple
        self.network.to(self.device)

    def run(self, images: Tensor) -> Tensor:
        """Map images on the device."""
        with torch.inference_mode(), torch_threads(self.threads) if self.threads else nullcontext():
            output: Tensor = self.network(images.to(self.device))
            if not isinstance(output, Tensor):
                raise UserError(
                    f"{self.path} returns a {type(output).__name__}, not images: wrap its network."
                )
            return output.float().cpu()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # a name that is none, or a device that isn't there: torch raises all kinds
        raise UserError(
            f"device is {name!r}, which torch can't use here ({first_line(error)}): set it to auto."
        ) from error
    return device
