"""Parametrized weights: weight norm, spectral norm and other parametrizations."""

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_leaves

from lightning_gancompress.errors import UserError

NetworkType = TypeVar("NetworkType", bound=nn.Module)


def copy_network(network: NetworkType) -> NetworkType:
    """Return a deep copy, with non-leaf tensors detached, since PyTorch can't copy these.

    Such tensors are weights that hooks compute, and features that a network keeps as attributes.

    Raises:
        UserError: An attribute of a module can't be copied.
    """
    attributes = tree_leaves([list(vars(module).values()) for module in network.modules()])
    left = [value for value in attributes if isinstance(value, Tensor) and not value.is_leaf]
    try:
        return copy.deepcopy(network, {id(value): value.detach().clone() for value in left})
    except Exception as error:  # whatever an attribute of the user's raises
        raise UserError(
            f"{type(network).__name__} can't be copied ({type(error).__name__}: {error}): one of its modules "
            "holds something else than tensors and plain values; make it where it is used."
        ) from error


def bake_parametrizations(network: NetworkType) -> NetworkType:
    """Replace all parametrized weights of `network` by plain parameters of the same values, in place.

    A small network has plain weights. Weight norm divides by the norm of a filter and spectral norm by the
    largest singular value of a weight, and both change with the number of channels, so that the small network
    would differ from the masked one. In the fine-tuning these weights are therefore not normalised.
    """
    for module in network.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
                for key, wrapped in list(module._load_state_dict_pre_hooks.items()):
                    # torch's remove_spectral_norm leaves this hook, since it does not look into its wrapper
                    if isinstance(getattr(wrapped, "hook", None), SpectralNormLoadStateDictPreHook):
                        del module._load_state_dict_pre_hooks[key]
            elif isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
        if parametrize.is_parametrized(module):
            _bake(module)
    return network


def _bake(module: nn.Module) -> None:
    """Remove parametrizations; torch's own function changes the class, which copies of the module share."""
    lists = dict(module.parametrizations.eval().items())  # type: ignore[union-attr, operator]
    baked = {name: getattr(module, name).detach().contiguous().clone() for name in lists}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, tensor in baked.items():
        if any(True for _ in lists[name].parameters()):
            module.register_parameter(name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor)


def has_parametrizations(network: nn.Module) -> bool:
    """Whether any layer of `network` has a parametrized weight."""
    return any(
        parametrize.is_parametrized(module)
        or any(isinstance(hook, WeightNorm | SpectralNorm) for hook in module._forward_pre_hooks.values())
        for module in network.modules()
    )
