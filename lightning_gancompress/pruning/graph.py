"""The graph of a network: one forward pass as a functional program of torch operations."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.fx import Node
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.export.program import quiet

SECONDS = 300.0  # time limit of reading a network
_SMALL = 64  # largest number of elements of a constant whose values are tracked
_READS = {
    *("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy", "__array__"),
    *("equal", "allclose", "is_nonzero"),
}
NOISE = {"rand", "randn", "rand_like", "randn_like", "normal", "uniform", "bernoulli", "exponential"}
_PREFIX = "network"  # attribute of `_Traced` that holds the network
_TORCH, _HERE = str(Path(torch.__file__).parent), str(Path(__file__).parent)


@dataclass(frozen=True)
class Graph:
    """The operations of one forward pass, none of which changes a tensor in place.

    Attributes:
        nodes: Operations of `torch.ops.aten` in the order of the pass, with placeholders and the output.
        tensors: Names of the parameters and buffers by the names of their placeholders.
        images: Names of the placeholders of the network's inputs.
        calls: Number of calls of each layer's forward, by the first name of the layer.
    """

    nodes: list[Node]
    tensors: dict[str, str]
    images: frozenset[str]
    calls: Counter[str]


class Deadline:
    """The time limit of reading a network."""

    def __init__(self, name: str) -> None:
        self._name, self._end = name, time.monotonic() + SECONDS

    def check(self, where: Callable[[], str]) -> None:
        """Raise a `UserError` with the position `where` if the time is up."""
        if time.monotonic() > self._end:
            raise UserError(
                f"{self._name}: its channels could not be read within {SECONDS:.0f} s; the reading got as "
                f"far as {where()}. Give smaller images, or keep what is slow whole with ignored_layers."
            )


def read_graph(network: nn.Module, name: str, inputs: Sequence[Tensor], deadline: Deadline) -> Graph:
    """Export a network to its graph.

    Args:
        network: The network on the CPU, in the mode to read; it is not changed.
        name: Name of the network in errors.
        inputs: Example inputs, `(1, C, H, W)` each.
        deadline: Time limit.

    Raises:
        UserError: The forward fails, depends on values of features, or can't be exported.
    """
    traced = _Traced(network, name, deadline)
    try:
        with warnings.catch_warnings(), torch.no_grad(), quiet():
            warnings.simplefilter("ignore")
            program = torch.export.export(traced, tuple(inputs), strict=False).run_decompositions({})
    except UserError:
        raise
    except Exception as error:  # the tracer's exceptions share no base class
        raise _refusal(network, name, inputs, error) from error
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return Graph(
        list(program.graph.nodes),
        {placeholder: _own(key) for placeholder, key in names.items()},
        frozenset(map(str, signature.user_inputs)),
        traced.calls,
    )


def operation(node: Node) -> str:
    """Name of the operation of a node, such as `conv2d`."""
    schema = getattr(node.target, "_schema", None)
    name: str = (
        schema.name.rpartition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))
    )
    return name


def module_of(node: Node) -> str:
    """Name of the innermost module whose forward has called the operation; "" for the network itself."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return _own(stack[-1][0].partition("@")[0]) if stack else ""


def place_of(node: Node) -> str:
    """The line of the network's own code that calls the operation, as `path/file.py, line 3`; or empty."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    return next((f"{file}, line {line}" for file, line in reversed(frames) if _is_own(file)), "")


def places_in(error: Exception) -> list[str]:
    """Lines of the network's own code in the traceback of an error, innermost last; see `place_of`."""
    trace = [(step.tb_frame.f_code.co_filename, step.tb_lineno) for step in _steps(error.__traceback__)]
    return [f"{file}, line {line}" for file, line in trace if _is_own(file)]


def _steps(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _is_own(file: str) -> bool:
    return not file.startswith((_TORCH, _HERE)) and Path(file).name not in ("<string>", "<eval_with_key>")


def _own(name: str) -> str:
    return name.removeprefix(_PREFIX).removeprefix(".")


def flatten(outputs: object) -> list[Tensor]:
    """All floating-point tensors with dimensions in the output of a network, in order."""
    if isinstance(outputs, Tensor):
        floating = outputs.is_floating_point() or outputs.is_complex()
        return [outputs] if floating and outputs.ndim else []
    if dataclasses.is_dataclass(outputs):
        outputs = [getattr(outputs, field.name) for field in dataclasses.fields(outputs)]
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    return [x for value in outputs for x in flatten(value)] if isinstance(outputs, (list, tuple)) else []


def _tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


class _Traced(nn.Module):
    """The network as it is traced: with cloned inputs, which it may change, and a flat list of outputs."""

    def __init__(self, network: nn.Module, name: str, deadline: Deadline) -> None:
        super().__init__()
        self.network = network
        self.calls = Counter[str]()
        self._name, self._deadline = name, deadline
        tensors = _tensors_of(network)
        self._values = {key: x.detach().clone() for key, x in tensors.items() if x.numel() <= _SMALL}

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        tensors = _tensors_of(self.network)
        known = [(tensors[key], value) for key, value in self._values.items()]
        hooks = [
            module.register_forward_pre_hook(self._counted(n)) for n, module in self.network.named_modules()
        ]
        self.calls.clear()
        try:
            with _Watch(self._name, known, self._deadline):
                outputs = self.network(*[x.clone() for x in inputs])
            if not (found := flatten(outputs)):
                raise UserError(
                    f"{self._name} returns a {type(outputs).__name__} in which there is no image: wrap it in "
                    "a module that returns its image."
                )
            return found
        finally:
            for hook in hooks:
                hook.remove()

    def _counted(self, name: str) -> Callable[..., None]:
        def count(module: nn.Module, args: Any) -> None:
            self.calls[name] += 1

        return count


class _Watch(TorchFunctionMode):
    """Raises if a forward reads values of tensors, except of those computed from constants alone.

    Args:
        name: Name of the network in errors.
        known: Constants as pairs: the tracer's tensor, without values, and the same with values.
        deadline: Time limit.
    """

    def __init__(self, name: str, known: Iterable[tuple[Tensor, Tensor]], deadline: Deadline) -> None:
        super().__init__()
        self._name, self._deadline = name, deadline
        # keys are ids; the traced tensors are held so that their ids stay unique
        self._known = {id(traced): (traced, value) for traced, value in known}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        self._deadline.check(_place)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        known = all(id(x) in self._known for x in tensors)
        if name in _READS and not known:
            raise UserError(
                f"{self._name} looks at the values of its features ({_place()}), so that what it computes "
                "may differ from image to image, and pruning can't follow that. Write its forward without "
                "conditions on values or conversions to Python numbers; torch.where is a remedy for many."
            )
        if name in _READS:
            return self._value(func, args, kwargs)
        output = func(*args, **kwargs)
        results = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
        if known and results and name not in NOISE and all(x.numel() <= _SMALL for x in results):
            values = [x for x in tree_leaves(self._value(func, args, kwargs)) if isinstance(x, Tensor)]
            self._known |= {id(x): (x, value) for x, value in zip(results, values, strict=True)}
        return output

    def _value(self, func: Callable[..., Any], *tree: Any) -> Any:
        """Call the function on the tensors with values, without the tracer."""
        with _disable_current_modes(), DisableTorchFunction():
            args, kwargs = tree_map(lambda x: self._known[id(x)][1] if isinstance(x, Tensor) else x, tree)
            return func(*args, **kwargs)


def _place() -> str:
    """The line of the network's own code that is running, as `place_of`."""
    frame: FrameType | None = sys._getframe(1)
    while frame and not _is_own(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}" if frame else "its beginning"


def _refusal(network: nn.Module, name: str, inputs: Sequence[Tensor], error: Exception) -> UserError:
    """The error after the tracer failed with `error`: the network's own error on the inputs, if any."""
    shapes = " and ".join("x".join(map(str, x.shape)) for x in inputs)
    try:
        with torch.no_grad():
            network(*[x.clone() for x in inputs])
    except UserError as own:
        return own
    except Exception as failure:  # whatever a user's forward raises
        if re.search("cuda|nvidia|same device", str(failure), re.IGNORECASE):
            place = ", ".join(places_in(failure)[-1:])
            return UserError(
                f"{name} can't be traced for pruning, which reads it on the CPU: it moves tensors to "
                f"a device of its own ({place}: {first_line(failure)}). Take the device from its input."
            )
        cause = f"{type(failure).__name__}: {first_line(failure)}"
        return UserError(
            f"{name} can't be traced for pruning, since its forward fails on {shapes} ({cause}). Give images "
            "of the channels and the size that it was made for."
        )
    return UserError(
        f"{name} can't be traced for pruning ({type(error).__name__}: {first_line(error)}). Its forward "
        "must work on torch tensors alone: no NumPy, no compiled or scripted parts."
    )
