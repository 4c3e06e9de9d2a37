"""Groups: which channels of a network must be kept or dropped together."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
import torch_pruning as tp
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import bake_parametrizations, copy_network
from lightning_gancompress.pruning.channels import CHANNELWISE, CONSUMERS, ChannelGroups, can_be_cut
from lightning_gancompress.pruning.probes import Probed, flatten
from lightning_gancompress.pruning.reading import Part, Reading
from lightning_gancompress.pruning.stand_ins import Watch

# Layers without tensors that mix channels: the graph would take them for activations.
_MIXERS = (nn.LocalResponseNorm,)


def find_groups(
    network: nn.Module, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> ChannelGroups:
    """Trace a network and find the groups of channels that can be dropped.

    Args:
        network: Any traceable convolutional network; it is copied, never changed.
        inputs: Example inputs, each `(1, C, H, W)`.
        ignored_layers: Names of layers, or of modules that hold them, that stay whole, and with them every
            group they touch.

    Raises:
        UserError: The network can't be traced, holds a layer that can't be grouped, or nothing is left to
            drop.
    """
    unknown = [name for name in ignored_layers if name not in dict(network.named_modules())]
    if unknown:
        raise UserError(f"ignored_layers: the network has no layer named {', '.join(map(repr, unknown))}.")
    bundle = isinstance(network, nn.ModuleDict) and len(network) == len(inputs)  # one input for each
    networks = list(network.children()) if bundle else [network]
    name = " and ".join(dict.fromkeys(type(one).__name__ for one in networks))
    for one in networks:
        _check_arguments(one, len(inputs) // len(networks))
    inputs = [x.detach().cpu().float() if x.is_floating_point() else x.cpu() for x in inputs]
    try:
        copied = _traceable(network)
        with torch.random.fork_rng(devices=[]):
            probed = _probe(copied, name, inputs)
            graph = _trace(probed, inputs)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} can't be traced for pruning ({type(error).__name__}: {error}). Its forward must work on "
            "tensors alone, without control flow that depends on their values."
        ) from error
    whole = {x for ignored in ignored_layers for x in _parts(copied.get_submodule(ignored))}
    _refuse_unseen(copied, whole.union(graph.module2node))
    groups = Reading(graph, probed, whole).groups()
    if not groups.total:
        raise UserError(
            f"{name} has no channels that can be dropped: every layer writes its output, reads its image, or "
            "is in ignored_layers."
        )
    return groups


def _check_arguments(network: nn.Module, given: int) -> None:
    try:
        inspect.signature(network.forward).bind(*range(given))
    except TypeError as error:
        raise UserError(
            f"{type(network).__name__}.forward can't be called with {given} input{'s' * (given != 1)} alone "
            f"({error}): wrap it in a module whose forward needs no more, or give the others a default."
        ) from error


def _traceable(network: nn.Module) -> nn.Module:
    """A copy in which every tensor with channels shows in the graph."""
    copied = bake_parametrizations(copy_network(network)).cpu().float().eval()
    for module in copied.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            # (C, 1, 1) or (1, C, 1, 1), which can only meet the channels of images
            if buffer.ndim > 2 and buffer.shape[-3] == buffer.numel() > 1 and can_be_cut(module, name):
                delattr(module, name)
                module.register_parameter(name, nn.Parameter(buffer))
    return copied.requires_grad_(True)


def _probe(network: nn.Module, name: str, inputs: Sequence[Tensor]) -> Probed:
    with torch.no_grad(), Watch(name, network) as watch:
        outputs = flatten(network(*watch.follow([x.clone() for x in inputs])))
    return Probed(network, name, inputs, outputs, watch.made).eval()


@torch.enable_grad()  # without gradients it silently finds nothing
def _trace(probed: Probed, inputs: Sequence[Tensor]) -> tp.DependencyGraph:
    return tp.DependencyGraph().build_dependency(
        probed,
        example_inputs=(inputs,),
        customized_pruners={mixer: tp.ops.DummyPruner() for mixer in _MIXERS},
        verbose=False,
    )


def _parts(module: nn.Module) -> list[Part]:
    return [*module.modules(), *module.parameters()]


def _refuse_unseen(network: nn.Module, seen: set[Part]) -> None:
    """Whatever feeds a layer that the trace did not meet, one can't tell; it may be used another time."""
    within = {part for module in network.modules() if module in seen for part in module.modules()}
    for name, layer in network.named_modules():
        if isinstance(layer, (*CONSUMERS, *CHANNELWISE)) and layer not in within:
            raise UserError(
                f"{name!r} ({type(layer).__name__}) takes no part in the traced forward pass: it is never "
                "called, or only under a condition or torch.no_grad(). Remove it; or, if no channel that may "
                f"be dropped ever reaches it, list it in ignored_layers: [{name}]."
            )
