"""FID and KID, computed by torch-fidelity."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.data.pictures import to_uint8
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.options import checked

Feature = Literal[64, 192, 768, 2048]
Resize = Literal["torch-fidelity", "pytorch-fid"]
INPUT = 299  # pixels
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000  # the usual setting; all images where there are fewer
SEED = 2020  # torch-fidelity's default


class InceptionFeatures:
    """Computes Inception's features of images, for FID and KID.

    Not an `nn.Module`, so that checkpoints of a module that holds it don't hold Inception's weights.

    Example:
        >>> inception = InceptionFeatures(768, "inception.pth")
        >>> distances(inception(translated), inception(photos))
        {'fid_768': 0.37, 'kid_768': 0.00003}

    Args:
        feature: Inception's layer by its width: 2048 is the usual FID; the others are different metrics, with
            the width in their names (`fid_768`).
        weights: torch-fidelity's weight file; None downloads it.
        device: Device of Inception.
        resize: How images are resized to 299 pixels: as in torch-fidelity (TensorFlow's bilinear resize, like
            the original FID), or as in pytorch-fid, which most papers on GAN compression use (torch's
            bilinear resize without antialiasing, of pixels rounded down to integers).

    Attributes:
        weights_sha256: First digits of the hash of Inception's tensors, which does not depend on the file.
    """

    @checked
    def __init__(
        self,
        feature: Feature = 2048,
        weights: str | Path | None = None,
        device: torch.device | str = "cpu",
        resize: Resize = "torch-fidelity",
    ) -> None:
        self.feature, self.resize = feature, resize
        network = load_inception(feature, weights)
        self.weights_sha256 = tensors_sha256(network)[:12]
        self._network = (LegacyResize(network) if resize == "pytorch-fid" else network).to(device)
        self._device = torch.device(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, feature), on the CPU, of images (B, 1 or 3, H, W) in [-1, 1], or uint8.

        Raises:
            UserError: The images have neither 1 nor 3 channels.
        """
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[1] != 3:
            raise UserError(
                f"FID and KID need images of 1 or 3 channels, not {images.shape[1]}: leave fid_feature out."
            )
        rounded = self.resize == "torch-fidelity"
        pixels = images if images.dtype == torch.uint8 else to_uint8(images, rounded)
        with torch.inference_mode():
            features: Tensor = self._network(pixels.to(self._device))[0]
        return features.cpu()


def distances(fake: Tensor, real: Tensor) -> dict[str, float]:
    """FID and KID between two sets of features (N, D) and (M, D).

    Returns:
        `fid` and `kid` when D is 2048, `fid_D` and `kid_D` otherwise. KID is the mean over 100 random subsets
        of min(N, M, 1000) images, drawn from a fixed seed.

    Raises:
        UserError: A set has fewer than two images.
    """
    from torch_fidelity import metric_fid, metric_kid

    size = min(len(fake), len(real))
    if size < 2:
        raise UserError(f"FID and KID need at least 2 images in each set, not {size}.")
    statistics = [metric_fid.fid_features_to_statistics(features) for features in (fake, real)]
    fid = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    kid = metric_kid.kid_features_to_metric(
        fake,
        real,
        kid_subsets=KID_SUBSETS,
        kid_subset_size=min(size, KID_SUBSET_SIZE),
        rng_seed=SEED,
        verbose=False,
    )
    suffix = "" if fake.shape[1] == 2048 else f"_{fake.shape[1]}"
    return {
        f"fid{suffix}": fid[metric_fid.KEY_METRIC_FID],
        f"kid{suffix}": kid[metric_kid.KEY_METRIC_KID_MEAN],
    }


class LegacyResize(nn.Module):
    """torch-fidelity's Inception with pytorch-fid's resize: uint8 images (B, 3, H, W) -> features."""

    def __init__(self, inception: nn.Module) -> None:
        super().__init__()
        self.inception = inception

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run Inception with the resized images of pytorch-fid in place of its own."""
        pixels = legacy_pixels(images)
        first = self.inception.get_submodule("Conv2d_1a_3x3")
        handle = first.register_forward_pre_hook(lambda _, args: (pixels,))
        try:
            features: tuple[Tensor, ...] = self.inception(images)
        finally:
            handle.remove()
        return features


def legacy_pixels(images: Tensor) -> Tensor:
    """Resize as pytorch-fid does: uint8 (B, 3, H, W) -> (B, 3, 299, 299) in [-1, 1]."""
    size = (INPUT, INPUT)
    return 2 * F.interpolate(images.float() / 255, size, mode="bilinear", align_corners=False) - 1


def tensors_sha256(network: nn.Module) -> str:
    """Hash of all tensors of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_inception(feature: Feature, weights: str | Path | None) -> nn.Module:
    """torch-fidelity's Inception: uint8 images (B, 3, H, W) -> a tuple of the features (B, feature).

    Args:
        feature: Width of the layer to return.
        weights: torch-fidelity's weight file; None downloads it.

    Raises:
        UserError: The file is missing or of another network, or the download failed.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if weights is not None:
        weights = user_path(weights)
        read_torch(weights)  # refuses a file with code, which torch-fidelity would run
    try:
        network: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            [str(feature)],
            feature_extractor_weights_path=None if weights is None else str(weights),
            verbose=False,
        )
    except (OSError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        if weights is None:
            msg = (
                f"Inception's weights for FID and KID can't be downloaded ({reason}): name a local copy "
                "of torch-fidelity's weights-inception-2015-12-05-6726825d.pth in `weights` (`fid_weights` "
                "of the Evaluation callback)."
            )
        else:
            msg = f"{weights} doesn't hold torch-fidelity's Inception ({reason}): give its own weight file."
        raise UserError(msg) from error
    return network
