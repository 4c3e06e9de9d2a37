"""Encoders: feature spaces of images, in which neighbourhoods and densities are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_state_dict
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.options import Pixels, checked
from lightning_gancompress.trust import PACKAGE


class Encoder(nn.Module, ABC):
    """Maps images to feature vectors; differentiable, frozen, in eval mode."""

    @abstractmethod
    def features(self, source: Tensor, image: Tensor) -> Tensor:
        """Features `(B, F)` of images `(B, C, H, W)` in [-1, 1], generated from `source`."""

    def forward(self, source: Tensor, image: Tensor) -> Tensor:
        """L2-normalised features `(B, F)`."""
        return F.normalize(self.features(source, image).float(), dim=1)


class CriticEncoder(Encoder):
    """The input of the last layer of the teacher's discriminator, pooled to mean and deviation per channel.

    The default encoder: it needs no download and was trained on these images. The bottleneck of the generator
    would depend on the source alone, not on the student's image.

    Args:
        discriminate: Runs the discriminator on `(source, image)`.
        discriminator: The frozen network that `discriminate` runs.
    """

    def __init__(self, discriminate: Callable[[Tensor, Tensor], Any], discriminator: nn.Module) -> None:
        super().__init__()
        self._discriminate = discriminate
        # in a tuple, not registered: checkpoints would hold the teacher's tensors twice
        self._layers = tuple(m for m in discriminator.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))

    def features(self, source: Tensor, image: Tensor) -> Tensor:
        """Mean and standard deviation over positions of the input of the layer that is called last."""
        inputs: dict[str, Tensor] = {}
        handles = [
            layer.register_forward_pre_hook(lambda _, args: inputs.update(last=args[0]))
            for layer in self._layers
        ]
        try:
            self._discriminate(source, image)
        finally:
            for handle in handles:
                handle.remove()
        return pooled(inputs["last"])


class GeneratorEncoder(Encoder):
    """The smallest feature map of the teacher's generator, applied to the image in place of a source.

    For a teacher without discriminator. The map is pooled to mean and deviation per channel.

    Args:
        generator: The frozen network. If images and sources have different numbers of channels, the image is
            averaged over its channels and repeated.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self._layers = (generator,)  # in a tuple, as above
        # only this package's networks can be left half-way: another's may clean up at the end of its forward
        self._stops = type(generator).__module__.startswith(f"{PACKAGE}.")
        self._calls: dict[torch.Size, int] = {}  # number of the convolution to stop at, by the size of images

    def features(self, source: Tensor, image: Tensor) -> Tensor:
        """Mean and standard deviation over positions of the smallest feature map."""
        if image.shape[1] != source.shape[1]:
            image = image.mean(1, keepdim=True).expand(-1, source.shape[1], -1, -1)
        size = image.shape[1:]
        number = self._calls.get(size)
        maps = self._maps(image, number)
        if number is None:
            # the first of the smallest maps with more than one position: a single one has no deviation
            sizes = [m[0, 0].numel() for m in maps]
            number = sizes.index(min((size for size in sizes if size > 1), default=1))
            if self._stops:
                self._calls[size] = number
        return pooled(maps[number])

    def _maps(self, image: Tensor, last: int | None) -> list[Tensor]:
        """The outputs of the generator's convolutions, up to the one with the number `last`; None is all."""
        maps: list[Tensor] = []

        def keep(_: nn.Module, args: Any, output: Tensor) -> None:
            maps.append(output)
            if len(maps) - 1 == last:
                raise _Enough

        (generator,) = self._layers
        convolutions = [m for m in generator.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
        handles = [layer.register_forward_hook(keep) for layer in convolutions]
        try:
            generator(image)
        except _Enough:  # what comes after is most of the network, and nobody reads it
            pass
        finally:
            for handle in handles:
                handle.remove()
        return maps


class _Enough(Exception):
    """Ends a forward."""


def pooled(maps: Tensor) -> Tensor:
    """Mean and standard deviation over positions, `(B, C, H, W)` -> `(B, 2 C)`; `(B, C)` is one position."""
    flat = maps.float().reshape(*maps.shape[:2], -1)
    # The variance of a single position is zero; its root needs the epsilon to have a gradient.
    return torch.cat([flat.mean(2), (flat.var(2, unbiased=False) + 1e-8).sqrt()], dim=1)


class BackboneEncoder(Encoder):
    """A torchvision classifier without its head, with weights from a file.

    Args:
        name: A torchvision classifier, such as `resnet50` or `mobilenet_v2`.
        weights: State dict for it, for example DINO or SwAV weights of a ResNet-50; the head may be missing.
        size: Images are resized to this many pixels.
        fold: `batch_norm` for files that hold batch norm, `folded` for files where it is folded into the
            convolutions.
    """

    @checked
    def __init__(
        self,
        name: str,
        weights: str,
        size: Pixels = 224,
        fold: Literal["batch_norm", "folded"] = "batch_norm",
    ) -> None:
        super().__init__()
        from torchvision import models

        if name not in models.list_models(module=models):
            raise UserError(f"encoder.name: torchvision has no classifier {name!r}; resnet50 is one.")
        try:
            norm = {"norm_layer": _NoNorm} if fold == "folded" else {}
            self.backbone = models.get_model(name, weights=None, **norm)
        except TypeError as error:
            raise UserError(f"encoder.fold: {name} can't be built without batch norm ({error}).") from error
        try:
            state = {key: tensor.float() for key, tensor in read_state_dict(user_path(weights)).items()}
        except UserError as error:
            raise UserError(f"encoder.weights: {error}") from error
        _add_folded_biases(self.backbone, state)
        try:
            missing, unexpected = self.backbone.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise UserError(f"encoder.weights: {weights!r} does not fit {name}: {error}.") from error
        lost = [k for k in (*missing, *unexpected) if not k.startswith(_HEADS)]
        if lost:
            other = "folded" if fold == "batch_norm" else "batch_norm"
            raise UserError(
                f"encoder.weights: {weights!r} does not fit {name} with encoder.fold={fold}: "
                f"{', '.join(lost[:5])} ...; try encoder.fold={other}, or name the right classifier."
            )
        head = next(part for part in ("fc", "classifier", "heads", "head") if hasattr(self.backbone, part))
        setattr(self.backbone, head, nn.Identity())
        self.name, self.size = name, size
        self.eval().requires_grad_(False)

    def extra_repr(self) -> str:
        """Name and size, on which cached neighbours depend besides the tensors."""
        return f"{self.name}, size={self.size}"

    def features(self, source: Tensor, image: Tensor) -> Tensor:
        """Pooled features under ImageNet normalisation; grey images are repeated to three channels.

        Raises:
            UserError: The images have neither 1 nor 3 channels.
        """
        if image.shape[1] not in (1, 3):
            raise UserError(
                f"encoder: {self.name} reads images of 1 or 3 channels, not {image.shape[1]}: leave it out."
            )
        image = image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image
        image = F.interpolate(image, (self.size, self.size), mode="bilinear", align_corners=False)
        mean, std = image.new_tensor([0.485, 0.456, 0.406]), image.new_tensor([0.229, 0.224, 0.225])
        scaled = ((image + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
        result: Tensor = self.backbone(scaled)
        return result.flatten(1)


# Keys of classifiers' heads, and of the projections that self-supervised training puts in their place.
_HEADS = ("fc.", "classifier.", "head", "projection_head.", "prototypes.")


class _NoNorm(nn.Identity):
    """Replaces a batch norm that is folded into the convolution before it."""

    def __init__(self, num_features: int) -> None:
        super().__init__()


def _add_folded_biases(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Add biases to convolutions for which the file has folded ones."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is None and f"{name}.bias" in state:
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
