"""Slim: turn a masked network into a small dense one with the same output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import bake_parametrizations, copy_network
from lightning_gancompress.pruning.channels import CHANNELWISE, ChannelGroups
from lightning_gancompress.pruning.groups import find_groups
from lightning_gancompress.pruning.masks import ChannelMasks
from lightning_gancompress.pruning.probes import flatten


def slim(network: nn.Module, groups: ChannelGroups, mask: Tensor) -> nn.Module:
    """Copy a network without the channels that the mask drops.

    Args:
        network: The whole network; it stays as it is.
        groups: Its groups.
        mask: `(total,)`; above 0.5 keeps a channel.

    Returns:
        An ordinary dense network with the inherited weights, all of them trainable. Weight and spectral norms
        are baked into the weights, see `bake_parametrizations`.
    """
    keep = torch.cat([mask.detach().cpu().float(), torch.ones(1)]) > 0.5
    small = bake_parametrizations(copy_network(network))
    for name, channels in groups.layers.items():
        inputs, outputs = (keep[index].nonzero().flatten() for index in (channels.inputs, channels.outputs))
        _shrink(small.get_submodule(name), inputs, outputs)
    for name, index in groups.tensors.items():
        owner, _, attribute = name.rpartition(".")
        module = small.get_submodule(owner)
        dim = list(getattr(module, attribute).shape).index(len(index))
        _select(module, attribute, dim, keep[index].nonzero().flatten())
    return small.requires_grad_(True)


def _shrink(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    if isinstance(layer, CHANNELWISE):
        if isinstance(layer, nn.GroupNorm):
            layer.num_groups = layer.num_groups * len(outputs) // layer.num_channels
            layer.num_channels = len(outputs)
        elif isinstance(layer, nn.PReLU):
            layer.num_parameters = len(outputs)
        else:
            layer.num_features = len(outputs)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(layer, name, 0, outputs)
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = len(inputs), len(outputs)
        _select(layer, "bias", 0, outputs)
        _select(layer, "weight", 0, outputs)
        _select(layer, "weight", 1, inputs)
    elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        first, second = (inputs, outputs) if isinstance(layer, nn.ConvTranspose2d) else (outputs, inputs)
        _select(layer, "bias", 0, outputs)
        _select(layer, "weight", 0, first)
        if layer.groups == 1:
            _select(layer, "weight", 1, second)
        else:  # of which each stays or goes as a whole
            layer.groups = layer.groups * len(inputs) // layer.in_channels
        layer.in_channels, layer.out_channels = len(inputs), len(outputs)


def _select(layer: nn.Module, name: str, dim: int, keep: Tensor) -> None:
    tensor = getattr(layer, name, None)
    if tensor is None:
        return
    selected = tensor.detach().index_select(dim, keep.to(tensor.device)).clone()
    if isinstance(tensor, nn.Parameter):
        selected = nn.Parameter(selected)
    setattr(layer, name, selected)


def slim_by_mask(
    network: nn.Module, mask: Tensor, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> nn.Module:
    """Slim a network whose groups are not at hand, such as one from a checkpoint of the search.

    Args:
        network: The whole network.
        mask: `(total,)`; above 0.5 keeps a channel.
        inputs: Example inputs, `(1, C, H, W)` each.
        ignored_layers: As the groups were found with.

    Raises:
        UserError: The mask is of other groups.
    """
    groups = find_groups(network, inputs, ignored_layers)
    if len(mask) != groups.total:
        raise UserError(
            f"The mask of {len(mask)} channels does not fit {type(network).__name__}, which has "
            f"{groups.total} that can be dropped: give the ignored_layers of the search."
        )
    return slim(network, groups, mask)


@torch.no_grad()
def check_groups(
    network: nn.Module, groups: ChannelGroups, inputs: Sequence[Tensor], tolerance: float = 1e-4
) -> None:
    """Refuse groups under which masking and slimming disagree.

    About half of every group is dropped both ways, with random weights and inputs: blank ones, or weights
    near zero, would hide a difference. A network that mixes channels where the graph can't see it (a norm
    called as a function, say) would otherwise give a silent wrong answer.

    Args:
        network: The network; it stays as it is.
        groups: Its groups.
        inputs: Example inputs; only their shapes matter.
        tolerance: Largest difference allowed, relative to the largest output.

    Raises:
        UserError: The two disagree; names the groups that do so on their own.
    """
    generator = torch.Generator().manual_seed(0)
    whole = _scrambled(network, generator)
    noise = [torch.randn(x.shape, generator=generator) if x.is_floating_point() else x.cpu() for x in inputs]
    # Not the same number in neighbouring groups: equal halves fit together also where they should not.
    counts = [min(size // 2 + number % 2, size - 1) for number, size in enumerate(groups.sizes)]
    order = [torch.randperm(size, generator=generator) for size in groups.sizes]
    dropped = torch.cat([ranks < count for ranks, count in zip(order, counts, strict=True)])
    trouble = _disagreement(whole, groups, ~dropped, noise, tolerance)
    if trouble is None:
        return
    culprits = []
    for name, alone in zip(groups.names, groups.split(torch.arange(groups.total)), strict=True):
        mask = torch.ones(groups.total, dtype=torch.bool)
        mask[alone] = ~dropped[alone]
        if _disagreement(whole, groups, mask, noise, tolerance):
            culprits.append(name.split(":")[0])
    names = list(dict.fromkeys(culprits or groups.names))
    raise UserError(
        f"{type(network).__name__} can't be slimmed exactly: {trouble}. What reads the channels of "
        f"{', '.join(map(repr, names))} mixes or counts them where the trace can't see it. Keep them whole "
        f"with ignored_layers: [{', '.join(names)}]."
    )


def _scrambled(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with random weights of a scale that keeps signals alive."""
    network = bake_parametrizations(copy_network(network)).cpu().float().eval()
    statistics = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    for tensor in (*network.parameters(), *statistics):
        if tensor.ndim > 1:
            tensor.normal_(generator=generator).mul_((2 / tensor[0].numel()) ** 0.5)
        else:
            tensor.uniform_(0.5, 1.5, generator=generator)
    return network


def _disagreement(
    whole: nn.Module, groups: ChannelGroups, keep: Tensor, inputs: Sequence[Tensor], tolerance: float
) -> str | None:
    masks = ChannelMasks(groups)
    masks.set(keep.float())
    try:
        with torch.random.fork_rng(devices=[]):  # a network that draws noise draws the same for both
            state = torch.get_rng_state()
            small = flatten(slim(whole, groups, masks.mask).eval()(*inputs))
            masks.attach(whole)
            torch.set_rng_state(state)
            masked = flatten(whole(*inputs))
        worst = max(
            float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))
            for a, b in zip(masked, small, strict=True)
        )
    except Exception as error:  # whatever a forward raises on tensors of another shape
        return f"the small network fails ({type(error).__name__}: {error})"
    finally:
        masks.detach()
    if worst <= tolerance:
        return None
    return f"masked and small outputs differ by {worst:.2g} of their largest value"
