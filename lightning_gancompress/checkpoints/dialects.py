"""State dicts of a known architecture under other names, as reimplementations of CycleGAN and Pix2Pix write.

A state dict is a sequence of layers, in the order of their construction, with names and shapes. If every
layer matches one of a network of this project, in order and shape, the tensors *fit*. That is not enough to
load them: tensors do not show padding, activations, strides, or how branches are joined, and published
networks differ in each. A fit is *evident* if the numbers in the names match as well: the indices of an
`nn.Sequential` also count layers without tensors, so they show the position of each padding and activation.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.checkpoints.contents import common_length
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.networks.layers import Network

Layer = dict[str, Tensor]
"""The tensors of one layer: weight, bias, running_mean and so on."""

_UNSEEN = "padding, activations, strides, kinds of norms, and how branches join"


@dataclass(frozen=True)
class Fit:
    """The comparison of a file's tensors with a network of this project.

    Attributes:
        kind: Class name of the network.
        init_args: Arguments of the class.
        own: Layers of the network by name.
        given: Layers of the file by name.
        tensors: The file's tensors by the network's names, complete if the fit is whole. Biases that the file
            lacks are zeros; biases that the network lacks are subtracted from the running mean of the batch
            norm behind them.
        differing: Positions of the layers that differ, in order.
    """

    kind: str
    init_args: dict[str, Any]
    own: dict[str, Layer]
    given: dict[str, Layer]
    tensors: dict[str, Tensor]
    differing: list[int]

    @property
    def whole(self) -> bool:
        """Whether all layers match."""
        return not self.differing

    @property
    def matched(self) -> int:
        """Number of layers that match."""
        return max(len(self.own), len(self.given)) - len(self.differing)

    @property
    def evident(self) -> bool:
        """Whether the names show the layout as well: see above."""
        if self.kind == "PatchDiscriminator":  # strides differ among networks of the same names
            return False
        biased = all("bias" in layer for layer in self.given.values())
        norm = self.init_args["norm"]  # one without tensors is a guess from the biases, as upstream sets them
        clear = biased if norm == "instance" else norm != "none"
        return self.whole and clear and _numbers(self.own) == _numbers(self.given)

    @property
    def same_names(self) -> bool:
        """Whether most layers of the file have names of the network's layers."""
        return 2 * len(self.own.keys() & self.given.keys()) > len(self.given)

    @property
    def call(self) -> str:
        """The Python expression that constructs the network."""
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.init_args.items())})"

    @property
    def note(self) -> str:
        """Message about the assumptions of loading the file as this network."""
        return (
            f"{self.call}: tensors and layout are the same. Tensors don't show {_UNSEEN}: compare its "
            f"pictures with those of its own code, or give its own class, {self.ways}."
        )

    @property
    def doubt(self) -> str:
        """Message about why the file can't be loaded, and the remedy."""
        if self.whole:
            return (
                f"its tensors are in order and shape those of {self.call}, but neither they nor names such "
                f"as {next(iter(self.given))} show {_UNSEEN}. If it is built like this one, give that, and "
                f"else its own class, {self.ways}."
            )
        return (
            f"its tensors are of no architecture known here. The most similar is {self.call}, in "
            f"{self.matched} of {len(self.own)} layers; first, {self.departure}. Give its own class, "
            f"{self.ways}."
        )

    @property
    def ways(self) -> str:
        """Where a user can name the class of the network."""
        side = "discriminator" if self.kind.endswith("Discriminator") else "generator"
        return f"as model.{side}.class_path in a configuration or as architecture=... in Python"

    @property
    def departure(self) -> str:
        """The first layers that differ, with their shapes, as text."""
        own, given = (next(iter([*layers][self.differing[0] :]), None) for layers in (self.own, self.given))
        if given is None:
            return f"it ends where that has {_shapes(self.own[own or ''])}"
        found = f"it has {given} with {_shapes(self.given[given])} where that"
        return f"{found} ends" if own is None else f"{found} has {_shapes(self.own[own])}"


def evident_fit(tensors: Mapping[str, Tensor], error: UserError) -> Fit:
    """Return the evident fit of `tensors` to a network of this project.

    Args:
        tensors: Tensors of a network.
        error: Error of reading them by upstream's names; raised again if no network is similar.

    Raises:
        UserError: When no fit is evident; it names the most similar network and the first difference.
    """
    fits = list(_fits(_layers(tensors)))
    best = max(fits, key=lambda fit: (fit.evident, fit.whole, fit.matched), default=None)
    if best is not None and best.evident:
        return best
    namesake = next((fit for fit in fits if fit.same_names), None)
    if namesake is not None and not (best and best.whole):
        raise UserError(f"{error} Give its own class, {namesake.ways}.") from error
    if best is None or 2 * best.matched < len(best.own):
        raise error
    raise UserError(best.doubt) from error


def _fits(layers: dict[str, Layer]) -> Iterator[Fit]:
    """Compare `layers` with each network of this project that has as many convolutions."""
    for kind, init_args in _candidates(layers):
        try:
            with torch.device("meta"):
                network = NetworkSpec(f"lightning_gancompress.networks.{kind}", init_args).build()
        except (UserError, RuntimeError):  # the class has no network of this depth or width
            continue
        yield _compare(kind, init_args, _layers(network.state_dict()), layers)


def under_own_names(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` by the names that they have in `network`, if it is a network of this project.

    The user has named the class, so order and shapes suffice.

    Raises:
        UserError: When they don't fit; it names the first layer that differs.
    """
    own = network.state_dict()
    if not isinstance(network, Network) or own.keys() == tensors.keys():
        return tensors
    fit = _compare(type(network).__name__, network.init_args, _layers(own), _layers(tensors))
    if fit.whole:
        return fit.tensors
    if fit.same_names:
        return tensors  # loading them will name the keys that differ
    raise UserError(f"its tensors are not those of this {fit.kind} under other names: {fit.departure}.")


def _candidates(layers: dict[str, Layer]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield classes and arguments of networks with as many convolutions and the same first and last one."""
    weights = [layer["weight"] for layer in layers.values() if "weight" in layer]
    shapes = [weight.shape for weight in weights if weight.ndim == 4]
    if not shapes:
        return
    (width, channels), last, depth = shapes[0][:2], shapes[-1], len(shapes)
    norms = ["instance_affine"] if any(weight.ndim == 1 for weight in weights) else ["instance", "none"]
    for norm in ["batch"] if any("running_mean" in layer for layer in layers.values()) else norms:
        ends = {"in_channels": channels, "out_channels": last[0], "ngf": width}
        for dropout in (False, True):
            rest = {"norm": norm, "dropout": dropout}
            yield "ResnetGenerator", ends | {"n_blocks": (depth - 6) // 2} | rest
        yield "MobileResnetGenerator", ends | {"n_blocks": (depth - 6) // 4, "norm": norm, "dropout": False}
        ends["out_channels"] = last[1]
        yield "UnetGenerator", ends | {"n_downs": depth // 2, "norm": norm, "dropout": True}
        discriminator = {"in_channels": channels, "ndf": width}
        yield "PatchDiscriminator", discriminator | {"n_layers": depth - 2, "norm": norm}
        yield "PixelDiscriminator", discriminator | {"norm": norm}


def _compare(kind: str, init_args: dict[str, Any], own: dict[str, Layer], given: dict[str, Layer]) -> Fit:
    named: dict[str, Tensor] = {}
    differing = []
    moved = _biases_moved(list(own.values()), list(given.values()))
    for position, (name, layer) in enumerate(zip_longest(own, moved)):
        filled = _filled(own[name], layer) if name is not None and layer is not None else None
        if filled is None:
            differing.append(position)
        else:
            named |= {f"{name}.{part}": tensor for part, tensor in filled.items()}
    return Fit(kind, init_args, own, given, named, differing)


def _biases_moved(own: list[Layer], given: list[Layer]) -> list[Layer]:
    """Return `given` with biases that `own` lacks subtracted from the running mean of the norm behind."""
    given = [dict(layer) for layer in given]
    for mine, layer, norm in zip(own, given, given[1:], strict=False):
        bias, mean = layer.get("bias"), norm.get("running_mean")
        if "bias" not in mine and bias is not None and mean is not None and bias.shape == mean.shape:
            norm["running_mean"] = mean.float() - layer.pop("bias").float()
    return given


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, Layer]:
    """Return the layers in the order of the file, or of their numbers if the file was sorted by name."""
    layers: dict[str, Layer] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(".")
        layers.setdefault(name, {})[part] = tensor
    return (
        layers if _ascending(layers) else dict(sorted(layers.items(), key=lambda item: _by_number(item[0])))
    )


def _filled(own: Layer, given: Layer) -> Layer | None:
    """Return `given` with default values for tensors that only `own` has, or None if the layers differ."""
    if given.keys() - own.keys():
        return None
    filled = {}
    for part, tensor in own.items():
        if part in given:
            filled[part] = given[part]
        elif part in ("bias", "num_batches_tracked"):
            filled[part] = torch.zeros(tensor.shape, dtype=tensor.dtype)
        elif part == "weight" and "running_mean" in given:
            filled[part] = torch.ones(tensor.shape)
        else:
            return None
        if filled[part].shape != tensor.shape:
            return None
    return filled


def _numbers(names: Iterable[str]) -> list[list[str]]:
    """Return the numbers in each name after the common prefix of all names."""
    parts = [name.split(".") for name in names]
    shared = common_length(parts)
    return [[part for part in name[shared:] if part.isdigit()] for name in parts]


def _ascending(names: Iterable[str]) -> bool:
    """Whether layers are in the order of their numbers; in a file sorted by name, 10 comes before 2."""
    for names_of_two in pairwise(name.split(".") for name in names):
        one, other = next(((a, b) for a, b in zip(*names_of_two, strict=False) if a != b), ("", ""))
        if one.isdigit() and other.isdigit() and int(one) > int(other):
            return False
    return True


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in name.split(".")]


def _shapes(layer: Layer) -> str:
    return ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in layer.items() if tensor.ndim)
