"""LPIPS, a learned perceptual distance, with its backbone from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_state_dict
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.options import checked


class Lpips:
    """LPIPS (Zhang et al. 2018) as computed by torchmetrics, which contains its linear layers.

    Args:
        weights: File of torchvision's AlexNet (alexnet-owt-7be5be79.pth) or VGG-16 (vgg16-397923af.pth).
        device: Device of the network.

    Attributes:
        net: `alex` or `vgg`, depending on the file; the two are different distances.

    Raises:
        UserError: The file is missing or of another network.
    """

    @checked
    def __init__(self, weights: str | Path, device: torch.device | str = "cpu") -> None:
        # private, since torchmetrics' public class and function download the backbone, and the class returns
        # no value per image; the package `lpips`, last released in 2021, uses deprecated parts of torchvision
        from torchmetrics.functional.image.lpips import _LPIPS

        state = read_state_dict(user_path(weights))
        self.net = "vgg" if "features.28.weight" in state else "alex"
        self._network: nn.Module = _LPIPS(net=self.net, pnet_rand=True)  # type: ignore[arg-type]
        backbone = self._network.get_submodule("net")
        # torchmetrics cuts the backbone into slices whose layers keep their numbers
        names = {name: f"features.{name.partition('.')[2]}" for name in backbone.state_dict()}
        missing = sorted(set(names.values()) - state.keys())
        if missing:
            raise UserError(
                f"lpips_weights: {weights} is neither torchvision's AlexNet nor its VGG-16 (there is no "
                f"{missing[0]}): give alexnet-owt-7be5be79.pth."
            )
        try:
            backbone.load_state_dict({name: state[old] for name, old in names.items()})
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"lpips_weights: {weights} does not fit {self.net} ({reason}).") from error
        self._network.eval().to(device)

    @torch.inference_mode()
    def __call__(self, image: Tensor, reference: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) in [-1, 1] twice, at least 32 pixels -> (B,), 0 for equal images.

        Raises:
            UserError: The images have neither 1 nor 3 channels.
        """
        if image.shape[1] not in (1, 3):
            raise UserError(
                f"LPIPS needs images of 1 or 3 channels, not {image.shape[1]}: leave lpips_weights out."
            )
        pair = (image.float().clamp(-1, 1), reference.float().clamp(-1, 1))
        device = next(self._network.parameters()).device
        distances: Tensor = self._network(*(x.expand(-1, 3, -1, -1).to(device) for x in pair))
        return distances.flatten()
