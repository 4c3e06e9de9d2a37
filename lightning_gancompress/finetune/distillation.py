"""Distillation losses between the small generator and its teacher in fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_gancompress.checkpoints.files import read_state_dict
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.networks import dry_run
from lightning_gancompress.options import Amount, Count, Items, checked
from lightning_gancompress.tasks import Images, Losses, Role, Task
from lightning_gancompress.tasks.task import Networks

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
VGG_LAYERS = (3, 8, 15, 22)  # relu1_2, relu2_2, relu3_3 and relu4_3 of VGG-16 (Johnson et al. 2016)


class Distillation(nn.Module):
    """Distillation losses of the fine-tuning; each argument up to `tv` is the weight of one, 0 for none.

    Shipped settings are `finetune_*.yaml`. The 1x1 convolutions of `features` and `channels` are trained with
    the generator and are not part of the small model.

    Args:
        output: L1 distance between the images of student and teacher.
        ssim: 1 - SSIM between them (OMGD, Ren et al. 2021).
        features: Mean squared distance of feature maps inside the generators, the student's brought to the
            teacher's width by a learned 1x1 convolution (GAN Compression, Li et al. 2020).
        channels: The same after averaging each map over its positions (channel distillation of OMGD).
        critic: L1 distance of feature maps inside the teacher's discriminator between both images; after
            discriminator-cooperated distillation (Hu et al. 2023), which feeds it the generators' maps.
        perceptual: L1 distance of VGG-16's relu2_2 (OMGD).
        style: L1 distance of Gram matrices of four layers of VGG-16 (OMGD).
        tv: Total variation of the student's image, summed over pixels and channels (OMGD).
        task: Weight of the task's own losses; 0 trains without discriminator, as OMGD does.
        layers: Names of the generators' layers whose maps are compared; None takes `count` convolutions,
            evenly spaced.
        count: Number of layers where `layers` is None.
        backbone: File with the weights of torchvision's VGG-16, for `perceptual` and `style`.
    """

    @checked
    def __init__(
        self,
        output: Amount = 0.0,
        ssim: Amount = 0.0,
        features: Amount = 0.0,
        channels: Amount = 0.0,
        critic: Amount = 0.0,
        perceptual: Amount = 0.0,
        style: Amount = 0.0,
        tv: Amount = 0.0,
        task: Amount = 1.0,
        layers: Annotated[list[str], Items()] | None = None,
        count: Count = 4,
        backbone: str | None = None,
    ) -> None:
        super().__init__()
        if (perceptual or style) and backbone is None:
            raise UserError(
                "distillation.backbone: perceptual and style look through a VGG-16: name the file of "
                "torchvision's weights (vgg16-397923af.pth), or set both to 0; critic needs no file."
            )
        self.weights = {
            "output": output,
            "ssim": ssim,
            "features": features,
            "channels": channels,
            "critic": critic,
            "perceptual": perceptual,
            "style": style,
            "tv": tv,
        }
        if not task and not any(self.weights.values()):
            raise UserError("distillation: all weights are 0, which leaves nothing to train for: raise one.")
        self.task, self.layers, self.count = task, layers, count
        self.adapters = nn.ModuleList()
        self._pairs: list[tuple[Role, str]] = []  # role and layer of each adapter
        self._seen: dict[tuple[str, Role, str], Tensor] = {}
        # in a tuple, so that it is no submodule and not saved in checkpoints
        self._vgg: tuple[nn.Sequential, ...] = ()
        if backbone is not None and (perceptual or style):
            self._vgg = (load_vgg(backbone),)

    def check(self, task: Task, teacher: Networks, student: Networks, sources: Images) -> None:
        """Check before a search that every loss can be computed on these networks.

        Args:
            task: Names the roles.
            teacher: The teacher's networks by role.
            student: The student's networks by role.
            sources: Blank source (1, C, H, W) of each compressed generator.

        Raises:
            UserError: A loss needs a discriminator or a layer that is missing, or images of 1 or 3 channels.
        """
        if self.weights["critic"] and not any(role.discriminator in teacher for role in task.compressed):
            raise UserError(
                "distillation.critic looks through the teacher's discriminator, and there is none: set it to "
                "0, and perceptual to 10, say."
            )
        for role in task.compressed:
            if self.weights["features"] or self.weights["channels"]:
                self._chosen(teacher[role], student[role], sources[role])
            if self._vgg:
                _require_colours(teacher[role], sources[role])

    def prepare(self, task: Task, teacher: Networks, student: Networks, sources: Images) -> None:
        """Create the 1x1 convolutions for the student's numbers of channels; arguments as `check`."""
        self.check(task, teacher, student, sources)
        self.adapters, self._pairs = nn.ModuleList(), []
        if not (self.weights["features"] or self.weights["channels"]):
            return
        for role in task.compressed:
            for layer in self._chosen(teacher[role], student[role], sources[role]):
                small, whole = (net[role].get_submodule(layer) for net in (student, teacher))
                self._pairs.append((role, layer))
                self.adapters.append(nn.Conv2d(out_channels(small), out_channels(whole), 1))

    def _chosen(self, teacher: nn.Module, student: nn.Module, source: Tensor) -> list[str]:
        names = dict(student.named_modules())
        both = [name for name in called_convolutions(teacher, source) if name in names]
        if self.layers is None:
            inner = both[:-1]  # the last one writes the image
            count = min(self.count, len(inner))
            return [inner[(2 * k + 1) * len(inner) // (2 * count)] for k in range(count)]
        unknown = [name for name in self.layers if name not in both]
        if unknown:
            raise UserError(
                f"distillation.layers: the generators have no convolution named {', '.join(unknown)}; they "
                f"have {', '.join(both)}."
            )
        return self.layers

    @contextmanager
    def watching(self, teacher: Networks, student: Networks) -> Iterator[None]:
        """Context that keeps the outputs of the compared layers in their first forward pass."""
        handles = []
        for owner, networks in (("teacher", teacher), ("student", student)):
            for role, layer in self._pairs:
                hook = self._keeping((owner, role, layer))
                handles.append(networks[role].get_submodule(layer).register_forward_hook(hook))
        try:
            yield
        finally:
            self._seen.clear()
            for handle in handles:
                handle.remove()

    def _keeping(self, key: tuple[str, Role, str]) -> Any:
        def keep(_: nn.Module, args: Any, output: Tensor) -> None:
            self._seen.setdefault(key, output)  # later calls are those of the cycle and identity losses

        return keep

    def forward(
        self, task: Task, teacher: nn.ModuleDict, batch: Mapping[str, Any], images: Images, references: Images
    ) -> Losses:
        """Weighted sum of the losses, and the unweighted values `distill_<name>` to log.

        Args:
            task: Names the roles and runs the networks.
            teacher: The teacher's networks by role.
            batch: The batch that was translated.
            images: The student's images (B, C, H, W) by generator.
            references: The teacher's images of the compressed generators, without gradients.
        """
        if not any(self.weights.values()):
            return next(iter(images.values())).new_zeros(()), {}
        pairs = [(images[role], references[role]) for role in references]

        terms = {
            "output": lambda: [F.l1_loss(a.float(), b.float()) for a, b in pairs],
            "ssim": lambda: [1 - similarity(a, b) for a, b in pairs],
            "features": lambda: [F.mse_loss(a, b) for a, b in self._maps()],
            "channels": lambda: [F.mse_loss(a.mean((2, 3)), b.mean((2, 3))) for a, b in self._maps()],
            "critic": lambda: critic_distances(task, teacher, batch, images, references),
            "perceptual": lambda: [F.l1_loss(*self._vgg_maps(a, b)[1]) for a, b in pairs],
            "style": lambda: [F.l1_loss(gram(x), gram(y)) for a, b in pairs for x, y in self._vgg_maps(a, b)],
            "tv": lambda: [total_variation(a) for a, _ in pairs],
        }
        # summed over layers, as OMGD does, and averaged over generators
        used = {name: terms[name]() for name, weight in self.weights.items() if weight}
        values = {name: torch.stack(term).sum() / len(pairs) for name, term in used.items()}
        loss = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return loss, {f"distill_{name}": value for name, value in values.items()}

    def _maps(self) -> Iterator[tuple[Tensor, Tensor]]:
        for (role, layer), adapter in zip(self._pairs, self.adapters, strict=True):
            mapped = adapter(self._seen["student", role, layer])
            yield mapped.float(), self._seen["teacher", role, layer].float()

    def _vgg_maps(self, student: Tensor, teacher: Tensor) -> list[tuple[Tensor, Tensor]]:
        vgg = self._vgg[0]
        vgg.to(student.device)
        with torch.no_grad():
            references = vgg_features(vgg, teacher)
        return list(zip(vgg_features(vgg, student), references, strict=True))


def called_convolutions(network: nn.Module, source: Tensor) -> list[str]:
    """Names of the convolutions that `network` calls for `source`, in the order of the calls."""
    called: dict[str, None] = {}
    handles = [
        layer.register_forward_hook(lambda *_, name=name: called.setdefault(name))
        for name, layer in network.named_modules()
        if isinstance(layer, CONVOLUTIONS)
    ]
    try:
        dry_run(network, lambda x: network.eval()(x), source)
    finally:
        for handle in handles:
            handle.remove()
    return list(called)


def _require_colours(generator: nn.Module, source: Tensor) -> None:
    channels = dry_run(generator, lambda x: generator.eval()(x), source).shape[1]
    if channels not in (1, 3):
        raise UserError(
            f"distillation: perceptual and style look at images of 1 or 3 channels, and {channels} are what "
            f"{type(generator).__name__} makes: set both to 0, and critic to 1, say."
        )


def out_channels(layer: nn.Module) -> int:
    """Output channels of a convolution."""
    assert isinstance(layer, CONVOLUTIONS)
    return layer.out_channels


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of images (B, C, H, W) in [-1, 1], differentiable."""
    value = structural_similarity_index_measure(a.float(), b.float(), data_range=2.0)
    assert isinstance(value, Tensor)
    return value


def total_variation(images: Tensor) -> Tensor:
    """Sum of absolute differences of neighbouring pixels of (B, C, H, W), averaged over the B images."""
    rows, columns = (images.float().diff(dim=dim).abs().flatten(1).sum(1) for dim in (2, 3))
    return (rows + columns).mean()


def gram(features: Tensor) -> Tensor:
    """Gram matrices (B, C, C) of feature maps (B, C, H, W), divided by C x H x W (Johnson et al. 2016)."""
    flat = features.float().flatten(2)
    return flat @ flat.mT / (flat.shape[1] * flat.shape[2])


def critic_distances(
    task: Task, teacher: nn.ModuleDict, batch: Mapping[str, Any], images: Images, references: Images
) -> list[Tensor]:
    """L1 distance of feature maps in the teacher's discriminators, student's `images` against `references`.

    Returns:
        One scalar: the mean over maps times the number of generators, over which the caller averages.
    """
    maps = convolution_maps(task, teacher, batch, {role: images[role] for role in references})
    with torch.no_grad():
        targets = convolution_maps(task, teacher, batch, references)
    distances = [F.l1_loss(a.float(), b.float()) for a, b in zip(maps, targets, strict=True)]
    return [torch.stack(distances).sum() * len(references) / len(distances)]


def convolution_maps(
    task: Task, networks: nn.ModuleDict, batch: Mapping[str, Any], images: Images
) -> list[Tensor]:
    """Outputs of all convolutions of the discriminators on `images`, in the order of the calls."""
    maps: list[Tensor] = []
    discriminators = [networks[role] for role in task.discriminators if role in networks]
    handles = [
        layer.register_forward_hook(lambda _, args, output: maps.append(output))
        for network in discriminators
        for layer in network.modules()
        if isinstance(layer, CONVOLUTIONS)
    ]
    try:
        task.discriminate(networks, batch, images)
    finally:
        for handle in handles:
            handle.remove()
    return maps


def load_vgg(path: str) -> nn.Sequential:
    """The layers of VGG-16 up to relu4_3, frozen, with torchvision's weights from a file.

    Raises:
        UserError: The file is missing or of another network.
    """
    from torchvision.models import vgg16

    network = vgg16(weights=None, init_weights=False).features[: VGG_LAYERS[-1] + 1]
    state = read_state_dict(user_path(path))
    names = {f"features.{name}" for name in network.state_dict()}
    if names - state.keys():
        raise UserError(
            f"distillation.backbone: {path} isn't torchvision's VGG-16, which has {min(names)} and so on: "
            "give vgg16-397923af.pth."
        )
    network.load_state_dict({name.removeprefix("features."): state[name] for name in names})
    frozen: nn.Sequential = network.eval().requires_grad_(False)
    return frozen


def vgg_features(vgg: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
    """Feature maps (B, C, H, W) of `VGG_LAYERS` for images (B, 1 or 3, H, W) in [-1, 1]."""
    mean, std = images.new_tensor([0.485, 0.456, 0.406]), images.new_tensor([0.229, 0.224, 0.225])
    x = ((images + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    maps = []
    for position, layer in enumerate(vgg):
        x = layer(x.clone() if isinstance(layer, nn.ReLU) else x)  # torchvision's ReLU works in place
        if position in VGG_LAYERS:
            maps.append(x)
    return maps
