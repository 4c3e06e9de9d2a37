"""Size and number of channels of the images that a network reads."""

import inspect
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.networks.dry_run import unchanged, without_values
from lightning_gancompress.schema import items, whole

Shape = tuple[int, int, int, int]

LARGEST_SIDE = 16384  # pixels of an image, in a file
MOST_CHANNELS = 1024  # of an image, in a file
MOST = 64  # largest number of image channels that is tried, besides those of convolutions


def blank_image(network: nn.Module, size: int | tuple[int, int], likely: Iterable[int] = ()) -> Tensor:
    """Return zeros (1, C, height, width) that `network` can read, in its dtype and on its device.

    The number of channels is found by trying, since the first layers need not be convolutions.

    Args:
        network: Takes one image batch; it is not changed.
        size: Height and width in pixels; one number for both.
        likely: Numbers of channels to try first.

    Raises:
        UserError: When its `forward` needs further arguments, or fails on all images of this size.
    """
    require_image_alone(network)
    like = next(chain(network.parameters(), network.buffers()), torch.empty(0))
    like = like if like.is_floating_point() else like.float()
    sides = (size, size) if isinstance(size, int) else size
    shapes = [(1, channels, *sides) for channels in _candidates(network, likely)]
    image, failures = _first_read(network, like, shapes)
    if image is None:
        # wrong channels fail in the first layers: the trial that gets furthest may only need values
        most = max(steps for steps, _ in failures.values())
        furthest = [shape for shape, (steps, _) in failures.items() if steps == most]
        image, failures = _first_read(network, like, furthest, values=True)
    if image is not None:
        return image
    (_, channels, height, width), (_, error) = next(iter(failures.items()))
    if isinstance(error, UserError):
        raise error
    raise UserError(
        f"{type(network).__name__} can't read images of {height}x{width} pixels: with {channels} channels, "
        f"the likeliest number, it fails ({first_line(error)}); give another size."
    ) from error


def require_image_alone(network: nn.Module) -> None:
    """Raise a `UserError` if the forward of `network` needs more than one argument."""
    signature = inspect.signature(network.forward)
    try:
        signature.bind(None)
    except TypeError as error:
        raise UserError(
            f"{type(network).__name__} can't be given its inputs: forward{signature} is called with one "
            "image batch alone. Wrap it in a module that takes just that."
        ) from error


def _candidates(network: nn.Module, likely: Iterable[int]) -> list[int]:
    """Numbers of channels to try, the likeliest first.

    A single channel comes last, since it would be broadcast against a mean per channel, for example.
    """
    layers = [layer.in_channels for layer in network.modules() if isinstance(layer, _ConvNd)]
    weights = [weight.shape[:2] for weight in network.parameters() if weight.ndim > 1]
    others = [count for first, second in weights for count in (second, first) if count <= MOST]
    usual = [3, 4, 2, *range(5, 17)]
    return list(dict.fromkeys([*likely, *(n for n in (*layers, *others, *usual) if n > 1), 1]))


class _Steps(TorchFunctionMode):
    """Counts the torch functions that have returned, without looks at shapes and the like."""

    done = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.done += func.__name__ != "__get__"
        return result


def _first_read(
    network: nn.Module, like: Tensor, shapes: Iterable[Shape], values: bool = False
) -> tuple[Tensor | None, dict[Shape, tuple[int, Exception]]]:
    """The first blank image that `network` can read, and steps and error of each one before."""
    failures: dict[Shape, tuple[int, Exception]] = {}
    for shape in shapes:
        steps, image = _Steps(), like.new_zeros((1, 1, 1, 1)).expand(shape)
        try:
            with unchanged(network), steps:
                network.eval()(image.contiguous() if values else torch.empty_like(without_values(image)))
        except Exception as error:  # whatever a user's forward raises
            failures[shape] = steps.done, error
        else:
            return like.new_zeros(shape), failures
    return None, failures


def read_preprocessing(data: object, where: str = "preprocessing") -> dict[str, Any]:
    """The preprocessing record in a file.

    Raises:
        ValueError: It is no table, or a size or a number of channels is none.
    """
    record = dict(items(data, where))
    for name in ("image_size", "crop_size", "load_size"):
        sides = record.get(name)
        if sides is None and name != "load_size":
            record.pop(name, None)
            continue
        for side in sides if isinstance(sides, list | tuple) else [sides] * (sides is not None):
            whole(side, f"{where}.{name}", 1, LARGEST_SIDE)
        if isinstance(sides, list | tuple) and len(sides) != 2:
            raise ValueError(f"{where}.{name} is no height and width")
    for name in ("in_channels", "out_channels"):
        if name in record:
            whole(record[name], f"{where}.{name}", 1, MOST_CHANNELS)
    return record


def pixels(preprocessing: Mapping[str, Any]) -> int | tuple[int, int]:
    """Return the image size in a preprocessing record, side or (height, width); 256 without an entry."""
    size = preprocessing.get("image_size", preprocessing.get("crop_size", 256))
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) else int(size)


def image_channels(preprocessing: Mapping[str, Any]) -> list[int]:
    """Return the numbers of channels in a preprocessing record, that of the source first."""
    names = [name for name in ("in_channels", "out_channels") if name in preprocessing]
    return [int(preprocessing[name]) for name in names]
