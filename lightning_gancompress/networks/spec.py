"""Specs of networks, from which they can be built again: class, arguments, batch norms, channel widths."""

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks.init import init_weights
from lightning_gancompress.networks.parametrizations import (
    bake_parametrizations,
    copy_network,
    has_parametrizations,
)

BatchNorm = Literal["running", "image"]
PARAMETER_CONTAINERS = (nn.ParameterList, nn.ParameterDict)  # torch's classes around the user's own tensors


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """The description of a network in plain types, for JSON and checkpoints.

    Attributes:
        class_path: Import path of the class, a shipped one or the user's own.
        init_args: Arguments of its constructor; None if they are not known, and then `build` needs an
            `architecture`.
        batch_norm: "running" leaves batch norms as they are; "image" replaces each by an instance norm with
            the learned affine parameters, as a batch norm in training mode acts on a single image.
        widths: Channels per layer, as `channel_widths` returns them; None for those of the constructor.
    """

    class_path: str
    init_args: dict[str, Any] | None
    batch_norm: BatchNorm = "running"
    widths: dict[str, list[int]] | None = None

    @classmethod
    def of(cls, network: nn.Module, config: Mapping[str, Any] | None = None) -> "NetworkSpec":
        """Return the spec of a network as constructed.

        Args:
            network: The network; shipped ones have their arguments in `init_args`.
            config: `class_path` and `init_args` from the YAML, for other networks.
        """
        if config is not None:
            return cls(config["class_path"], dict(config.get("init_args") or {}))
        name = type(network).__name__
        arguments = getattr(network, "init_args", None)
        package, module = __name__.rpartition(".")[0], type(network).__module__
        return cls(
            f"{package if module.startswith(package) else module}.{name}",
            None if arguments is None else dict(arguments),
        )

    def build(
        self, state_dict: Mapping[str, Tensor] | None = None, architecture: nn.Module | None = None
    ) -> nn.Module:
        """Return the network in training mode, on the CPU, with initial weights or a copy of `state_dict`.

        In a small network, weights with weight norm or spectral norm are plain weights.

        Args:
            state_dict: Tensors of the network; None for initial weights.
            architecture: A network to copy instead of constructing one, if the arguments are not known.

        Raises:
            UserError: When the class can't be imported or made, or the tensors don't fit it.
        """
        shipped = self.class_path.startswith(f"{__name__.split('.')[0]}.")
        # on "meta" no weights are drawn that will be overwritten; a user's constructor may need values
        on_meta = shipped and state_dict is not None and architecture is None
        with torch.device("meta") if on_meta else nullcontext():
            network = (
                self._construct()
                if architecture is None
                else copy_network(architecture).cpu().float().train()
            )
            if self.batch_norm == "image":
                use_image_statistics(network)
            if has_parametrizations(network) and not self._parametrized(network, state_dict):
                bake_parametrizations(network)
            if self.widths is not None:
                set_channel_widths(network, self.widths)
        if state_dict is not None:
            load_tensors(network.to_empty(device="cpu") if on_meta else network, state_dict)
        elif shipped and self.widths is not None:
            args = self.init_args or {}
            init_weights(network, args.get("init", "normal"), args.get("init_gain", 0.02))
        return network

    def _parametrized(self, network: nn.Module, state_dict: Mapping[str, Tensor] | None) -> bool:
        if state_dict is None:
            return self.widths is None
        plain = bake_parametrizations(copy_network(network)).state_dict()
        return any(key in state_dict for key in network.state_dict() if key not in plain)

    def _construct(self) -> nn.Module:
        if self.init_args is None:
            raise UserError(
                f"The arguments that {self.class_path} was made with are not recorded: pass such a network, "
                "whole, as in load_generator(path, architecture=...)."
            )
        module_name, _, class_name = self.class_path.rpartition(".")
        try:
            network_class = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"The network class {self.class_path!r} can't be imported ({error}): "
                "install its package or put its folder on PYTHONPATH."
            ) from error
        if not (isinstance(network_class, type) and issubclass(network_class, nn.Module)):
            raise UserError(f"{self.class_path!r} is not a torch.nn.Module class: name one.")
        try:
            return network_class(**self.init_args)
        except TypeError as error:
            raise UserError(f"{self.class_path} does not accept {self.init_args}: {error}.") from error

    def reading(self, batch_norm: BatchNorm | None) -> "NetworkSpec":
        """Return the spec with `batch_norm` in place of its own; None changes nothing.

        Raises:
            UserError: When "running" is needed, and the network has no running statistics.
        """
        if batch_norm == "running" and self.batch_norm == "image":
            raise UserError(
                "batch_norm: running needs running statistics, and the network was made with batch_norm: "
                "image, which keeps none. Leave batch_norm out."
            )
        return dataclasses.replace(self, batch_norm=batch_norm or self.batch_norm)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> "NetworkSpec":
        """Build a spec from the output of `to_dict`.

        Raises:
            UserError: When `description` has other entries.
        """
        try:
            spec = cls(**description)
        except TypeError as error:
            raise UserError(f"This is no description of a network: {error}.") from error
        if spec.batch_norm not in ("running", "image"):
            raise UserError(f"batch_norm is {spec.batch_norm!r}: it must be 'running' or 'image'.")
        return spec


def channel_widths(network: nn.Module) -> dict[str, list[int]]:
    """Return the numbers of channels of each layer by name.

    Convolutions and linear layers: [in, out]; grouped convolutions: [in, out, groups]; norms and PReLU:
    [features]; group norms: [features, groups]; tensors of the user's own modules: their shape.
    """
    widths = {}
    for name, layer in network.named_modules():
        if isinstance(layer, _ConvNd):
            widths[name] = [layer.in_channels, layer.out_channels]
            if layer.groups > 1:
                widths[name].append(layer.groups)
        elif isinstance(layer, nn.Linear):
            widths[name] = [layer.in_features, layer.out_features]
        elif isinstance(layer, _NormBase):
            widths[name] = [layer.num_features]
        elif isinstance(layer, nn.GroupNorm):
            widths[name] = [layer.num_channels, layer.num_groups]
        elif isinstance(layer, nn.PReLU):
            widths[name] = [layer.num_parameters]
        elif not type(layer).__module__.startswith("torch.") or isinstance(layer, PARAMETER_CONTAINERS):
            own = (*layer.named_parameters(name, recurse=False), *layer.named_buffers(name, recurse=False))
            widths |= {key: list(tensor.shape) for key, tensor in own if tensor.ndim}
    return widths


def set_channel_widths(network: nn.Module, widths: Mapping[str, list[int]]) -> None:
    """Set the widths of the layers of `network`; a layer whose widths change gets initial parameters.

    Raises:
        UserError: When `widths` names other layers than `channel_widths` finds.
    """
    current = channel_widths(network)
    if current.keys() != widths.keys():
        raise UserError(
            f"The channel widths are not those of {type(network).__name__}: "
            + _differences(
                ("missing layers", [name for name in current if name not in widths]),
                ("unknown layers", [name for name in widths if name not in current]),
            )
        )
    layers = dict(network.named_modules())
    for name, layer_widths in widths.items():
        if list(layer_widths) == current[name]:
            continue
        if name in layers:
            _resize(layers[name], *layer_widths)
        else:
            owner, _, attribute = name.rpartition(".")
            _cut(layers[owner], attribute, layer_widths)


def _resize(layer: nn.Module, *widths: int) -> None:
    tensors: dict[str, tuple[int, ...]]
    if isinstance(layer, _ConvNd):
        layer.in_channels, layer.out_channels, layer.groups = (*widths, 1)[:3]
        first, second = layer.out_channels, layer.in_channels
        if isinstance(layer, _ConvTransposeNd):
            first, second = second, first
        tensors = {
            "weight": (first, second // layer.groups, *layer.kernel_size),
            "bias": (layer.out_channels,),
        }
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = widths
        tensors = {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}
    elif isinstance(layer, _NormBase):
        (layer.num_features,) = widths
        tensors = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), widths)
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels, layer.num_groups = widths
        tensors = dict.fromkeys(("weight", "bias"), widths[:1])
    elif isinstance(layer, nn.PReLU):
        (layer.num_parameters,) = widths
        tensors = {"weight": widths}
    else:
        raise TypeError(f"no widths are known for {type(layer).__name__}")
    for name, shape in tensors.items():
        if getattr(layer, name, None) is not None:
            _set(layer, name, getattr(layer, name).new_empty(shape))
    layer.reset_parameters()


def _cut(module: nn.Module, name: str, shape: Sequence[int]) -> None:
    """Narrow a tensor to its first channels; a state dict that is loaded later has the right values."""
    _set(module, name, getattr(module, name).detach()[tuple(slice(size) for size in shape)].clone())


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    old = getattr(module, name)
    setattr(
        module, name, nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor
    )


def use_image_statistics(network: nn.Module) -> None:
    """Replace each batch norm of `network` by an instance norm with its affine parameters, in place."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            norm = nn.InstanceNorm2d(layer.num_features, layer.eps, affine=layer.affine)
            norm.weight, norm.bias = layer.weight, layer.bias
            network.set_submodule(name, norm.train(layer.training))


def load_tensors(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copy `state_dict` into `network`; keys and shapes must be the same.

    Running statistics for norms that have none are ignored: files have them for batch norms that are used as
    "image", and files of 2017 also for instance norms.

    Raises:
        UserError: Keys or shapes differ; the message names them.
    """
    given = dict(state_dict)
    for name, layer in network.named_modules():
        if isinstance(layer, _NormBase) and not layer.track_running_stats:
            for statistic in ("running_mean", "running_var", "num_batches_tracked"):
                given.pop(f"{name}.{statistic}", None)
        elif isinstance(layer, _NormBase) and layer.num_batches_tracked is not None:
            # PyTorch before 0.4.1 kept no such counter
            given.setdefault(f"{name}.num_batches_tracked", torch.tensor(0))
    differences = tensor_differences(network.state_dict(), given)
    if differences:
        raise UserError(
            f"The tensors are of another architecture than this {type(network).__name__}: {differences}"
        )
    network.load_state_dict(given)


def tensor_differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return the keys and shapes in which `given` differs from a network's `own` tensors, or nothing."""
    shapes = [
        f"{key} is {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    if not (missing or unexpected or shapes):
        return ""
    return _differences(("missing keys", missing), ("unexpected keys", unexpected), ("shapes", shapes))


def _differences(*named: tuple[str, Iterable[str]]) -> str:
    """Return the non-empty lists as one line, each cut after three items."""
    parts = []
    for label, items in named:
        items = list(items)
        if items:
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            parts.append(f"{label}: {', '.join(items[:3])}{more}")
    return "; ".join(parts) + "."
