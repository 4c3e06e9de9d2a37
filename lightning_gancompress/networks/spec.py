"""Specs of networks, from which they can be built again: class, arguments, batch norms, channel widths."""

import dataclasses
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks.init import init_weights
from lightning_gancompress.networks.layers import Network
from lightning_gancompress.networks.parametrizations import (
    bake_parametrizations,
    copy_network,
    has_parametrizations,
)
from lightning_gancompress.schema import items, typed, whole
from lightning_gancompress.trust import PACKAGE, Named, class_named_in_file, remember, trusting

BatchNorm = Literal["running", "image"]
WIDEST = 2**17  # channels of a layer, in a description out of a file
DEEPEST = 256  # blocks or halvings, likewise
LARGEST = 2**31  # elements of a network's tensors, likewise
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
        from_file: Whether the description comes out of a file, which may not name any class: see `trust`.
    """

    class_path: str
    init_args: dict[str, Any] | None
    batch_norm: BatchNorm = "running"
    widths: dict[str, list[int]] | None = None
    from_file: bool = dataclasses.field(default=False, compare=False)

    @classmethod
    def of(cls, network: nn.Module, config: Mapping[str, Any] | None = None) -> "NetworkSpec":
        """Return the spec of a network as constructed.

        Args:
            network: The network; shipped ones have their arguments in `init_args`.
            config: `class_path` and `init_args` from the YAML, for other networks.
        """
        package, module = __name__.rpartition(".")[0], type(network).__module__
        path = f"{package if module.startswith(package) else module}.{type(network).__name__}"
        arguments = getattr(network, "init_args", None)
        if config is not None:
            path, arguments = config["class_path"], config.get("init_args") or {}
        if not path.startswith(f"{package}."):
            remember(path, type(network))
        return cls(path, None if arguments is None else dict(arguments))

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
        shipped = self.class_path.startswith(f"{PACKAGE}.")
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
                most = sum(t.numel() for t in state_dict.values()) if state_dict is not None else LARGEST
                set_channel_widths(network, self.widths, most)
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
        network_class = self._class()
        if not (isinstance(network_class, type) and issubclass(network_class, nn.Module)):
            raise UserError(f"{self.class_path!r} is not a torch.nn.Module class: name one.")
        if self.from_file and self.class_path.startswith(f"{PACKAGE}."):
            if not issubclass(network_class, Network):
                raise UserError(f"{self.class_path!r} is none of the networks of this package: name one.")
            try:
                check_arguments(network_class, self.init_args)
            except ValueError as error:
                raise UserError(
                    f"The description of the {network_class.__name__} is damaged: {error}."
                ) from error
        try:
            network: nn.Module = network_class(**self.init_args)
        except TypeError as error:
            raise UserError(f"{self.class_path} does not accept {self.init_args}: {error}.") from error
        return network

    def _class(self) -> Any:
        remedy = "pass such a network, as in load_generator(path, architecture=...)"
        if self.from_file:
            return class_named_in_file(self.class_path, "class_path", remedy)
        with trusting(Named(frozenset([self.class_path]))):
            return class_named_in_file(self.class_path, "class_path", remedy)

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
        entries = dataclasses.asdict(self)
        del entries["from_file"]
        return entries

    @classmethod
    def from_dict(cls, description: object) -> "NetworkSpec":
        """Build a spec from the output of `to_dict`.

        Raises:
            UserError: When `description` has other entries.
        """
        try:
            entries = dict(items(description, "the description"))
            if unknown := entries.keys() - {"class_path", "init_args", "batch_norm", "widths"}:
                raise ValueError(f"it has an entry {min(unknown)!r}")
            arguments, widths = entries.get("init_args", {}), entries.get("widths")
            return cls(
                typed(entries.get("class_path"), str, "class_path"),
                None if arguments is None else dict(items(arguments, "init_args")),
                typed(entries.get("batch_norm", "running"), BatchNorm, "batch_norm"),
                None
                if widths is None
                else {name: _read_widths(w, name) for name, w in items(widths, "widths")},
                from_file=True,
            )
        except ValueError as error:
            raise UserError(f"This is no description of a network: {error}.") from error


def _read_widths(value: object, layer: str) -> list[int]:
    if not isinstance(value, list) or not 1 <= len(value) <= 8:
        raise ValueError(f"widths.{layer} is no list of numbers")
    return [whole(width, f"widths.{layer}", 1, LARGEST) for width in value]


def check_arguments(network_class: type[Network], arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a shipped network before it is made.

    Raises:
        ValueError: One is unknown, of another type, or beyond what a network can have.
    """
    hints = get_type_hints(inspect.unwrap(network_class.__init__))
    for name, value in arguments.items():
        if name not in hints:
            raise ValueError(f"init_args has an entry {name!r}")
        typed(value, hints[name], f"init_args.{name}")
        if hints[name] is int:
            counted = name.startswith("n_")
            whole(value, f"init_args.{name}", 0 if counted else 1, DEEPEST if counted else WIDEST)


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


def set_channel_widths(network: nn.Module, widths: Mapping[str, list[int]], most: int = LARGEST) -> None:
    """Set the widths of the layers of `network`; a layer whose widths change gets initial parameters.

    Args:
        network: Changed in place.
        widths: Channels per layer, as `channel_widths` returns them.
        most: Elements that the changed layers may have together.

    Raises:
        UserError: When `widths` names other layers than `channel_widths` finds, or a layer can't have them.
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
    for name, new in widths.items():
        if list(new) == current[name]:
            continue
        if name in layers:
            _require_widths(name, new, len(current[name]), grouped=isinstance(layers[name], nn.GroupNorm))
            layer, shapes = layers[name], _shapes(layers[name], *new)
            shapes = {key: shape for key, shape in shapes.items() if getattr(layer, key, None) is not None}
            most -= sum(math.prod(shape) for shape in shapes.values())
            if most < 0:
                raise UserError(
                    f"The channel widths of {name}, {new}, make a larger network than the tensors."
                )
            _resize(layer, shapes, *new)
        else:
            if len(new) != len(current[name]) or any(
                n > old for n, old in zip(new, current[name], strict=True)
            ):
                raise UserError(f"{name} of {type(network).__name__} can't be cut to {new}.")
            owner, _, attribute = name.rpartition(".")
            _cut(layers[owner], attribute, new)


def _require_widths(name: str, new: Sequence[int], count: int, grouped: bool) -> None:
    """Raise a UserError unless a layer can have these widths; groups must divide the channels."""
    groups = new[-1] if grouped or len(new) == 3 else 1
    counts = (2, 3) if count in (2, 3) and not grouped else (count,)
    if len(new) not in counts or min(new) < 1 or any(width % groups for width in new):
        raise UserError(f"The layer {name} can't have the channel widths {new}.")


def _shapes(layer: nn.Module, *widths: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a layer with these widths."""
    if isinstance(layer, _ConvNd):
        inputs, outputs, groups = (*widths, 1)[:3]
        first, second = (inputs, outputs) if isinstance(layer, _ConvTransposeNd) else (outputs, inputs)
        return {"weight": (first, second // groups, *layer.kernel_size), "bias": (outputs,)}
    if isinstance(layer, nn.Linear):
        return {"weight": (widths[1], widths[0]), "bias": (widths[1],)}
    if isinstance(layer, _NormBase):
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), widths)
    if isinstance(layer, nn.GroupNorm):
        return dict.fromkeys(("weight", "bias"), widths[:1])
    if isinstance(layer, nn.PReLU):
        return {"weight": widths}
    raise TypeError(f"no widths are known for {type(layer).__name__}")


def _resize(layer: nn.Module, shapes: Mapping[str, tuple[int, ...]], *widths: int) -> None:
    if isinstance(layer, _ConvNd):
        layer.in_channels, layer.out_channels, layer.groups = (*widths, 1)[:3]
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = widths
    elif isinstance(layer, _NormBase):
        (layer.num_features,) = widths
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels, layer.num_groups = widths
    elif isinstance(layer, nn.PReLU):
        (layer.num_parameters,) = widths
    for name, shape in shapes.items():
        _set(layer, name, getattr(layer, name).new_empty(shape))
    layer.reset_parameters()  # type: ignore[operator]


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
    for label, names in named:
        names = list(names)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{label}: {', '.join(names[:3])}{more}")
    return "; ".join(parts) + "."
