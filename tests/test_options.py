"""Every option of everything that users call refuses nonsense, in one sentence that names it."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import tiny
import torch
from torch import nn

import lightning_gancompress
from lightning_gancompress import (
    api,
    callbacks,
    data,
    density,
    export,
    finetune,
    metrics,
    modules,
    networks,
    tasks,
)
from lightning_gancompress.cli.command_line import Commands
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Count, Items, Rate, checked, fits

ROOMS = (callbacks, data, finetune, modules, networks, tasks)
BASES = (callbacks.PruningPolicy, callbacks.SearchPolicy, data.GANDataModule, tasks.Task, modules.GANModule)
INTERNAL = ("Sampler", "Dataset", "Phase", "NetworkSpec", "Role", "Side")  # which the package itself makes
OTHERS = (
    *(api.compress, lightning_gancompress.load_generator),
    *(Commands.export, Commands.profile, Commands.compare, Commands.report, Commands.demo),
    *(density.BackboneEncoder, density.density_coverage, density.neighbourhood_ise, density.precision_recall),
    *(density.nearest_neighbours, export.export_onnx, export.export_torch, export.load_onnx),
    *(export.measure_latency, export.compare_latency, export.torch_latency, export.onnx_latency),
    *(metrics.InceptionFeatures, metrics.Lpips),
)


def everything() -> Iterator[Callable[..., Any]]:
    """What a configuration, a command or a script calls: all classes of the rooms, and the others."""
    found = [getattr(room, name) for room in ROOMS for name in room.__all__]
    # Python 3.10 takes dict[str, int] for a class as well
    for own in (one for one in found if inspect.isclass(one) and get_origin(one) is None):
        internal = own.__name__.endswith(INTERNAL) or issubclass(own, Exception)
        if own not in BASES and not internal and not inspect.isabstract(own):
            yield own
    yield from OTHERS


def options(called: Callable[..., Any]) -> dict[str, Any]:
    """Types of the arguments that can be written into a configuration, by name."""
    owner = called.__init__ if inspect.isclass(called) and not is_dataclass(called) else called
    hints = get_type_hints(owner, include_extras=True)
    names = inspect.signature(called).parameters
    return {name: hints[name] for name in names if name in hints and any(parts(hints[name]))}


def parts(hint: Any, ruled: bool = False) -> Iterator[tuple[Any, bool]]:
    """The plain types within a type, each with whether a rule holds for it."""
    kind, inner = get_origin(hint), get_args(hint)
    if hint in (int, float, bool, str) or kind is Literal:
        yield hint, ruled
    elif kind is Annotated:
        yield from parts(inner[0], not isinstance(inner[1], Items))
    elif kind in (Union, types.UnionType, list, tuple, dict):
        for part in inner:
            yield from parts(part, ruled)


def numeric(hint: Any) -> bool:
    return any(kind in (int, float) for kind, _ in parts(hint))


def shaped(number: float, hint: Any) -> Any:
    """A number in lists as deep and long as the type has them."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated and isinstance(inner[1], Items):
        return shaped(number, inner[0]) * (inner[1].most or 1)
    if kind in (Union, types.UnionType):
        return shaped(number, next(part for part in inner if numeric(part)))
    return [shaped(number, inner[0])] if kind is list else number


CASES = [
    pytest.param(called, name, hint, id=f"{called.__name__}.{name}")
    for called in everything()
    for name, hint in options(called).items()
    if name not in ("accelerator", "devices", "precision")  # Lightning checks its own
]
NUMBERS = [case for case in CASES if numeric(case.values[2])]
# where 0 means none; of all other numbers there must be some
MAY_BE_ZERO = {
    *(
        "cache_gb",
        "epochs",
        "decay_epochs",
        "n_blocks",
        "pool_size",
        "num_workers",
        "seed",
        "warmup",
        "seeds",
        "mean",
        "void",
    ),
    *(
        "budget_weight",
        "budget_ramp",
        "slack",
        "magnitude_prior",
        "adversarial_weight",
        "kernel_weight",
        "teacher_weight",
        "task_weight",
    ),
    *("distill_weight", "lambda_l1", "lambda_cycle", "lambda_identity", "beta1", "holdout"),
    *("output", "ssim", "features", "channels", "critic", "perceptual", "style", "tv", "task"),
    *("port", "minutes", "seconds", "teacher_cache_gb", "tolerance", "load_onnx.threads"),
}
NEVER_ZERO = {"SegmentationScore.epochs"}  # an untrained network finds nothing
PATHS = {"root": "there", "folder": "there", "output": "there", "ckpt_path": "there.ckpt"}
NEEDED = {
    **{**PATHS, "path": "there.pth", "weights": "there.pth", "model": "there.onnx"},
    **{"name": "resnet50", "k": 5, "encoding": "colors"},
    **dict.fromkeys(("generator", "discriminator", "network"), nn.Identity()),
    **dict.fromkeys(("features", "teacher", "student", "reference", "samples", "sample"), torch.ones(1, 1)),
}


def refusal(called: Callable[..., Any], given: dict[str, Any]) -> str:
    """The sentence by which arguments are refused; empty if they aren't."""
    parameters = inspect.signature(called).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty]
    try:
        called(**{name: NEEDED.get(name, object()) for name in needed} | given)
    except UserError as error:
        return str(error)
    return ""


def assert_refused(called: Callable[..., Any], name: str, value: Any) -> None:
    said = refusal(called, {name: value})
    assert re.match(rf"{name} (of {called.__name__} )?is .+: give .+\.$", said), (value, said)


def test_the_walk_sees_everything():
    names = {case.id for case in CASES}
    assert {"CompressionModule.budget", "FolderDataModule.holdout", "UnetGenerator.ngf"} <= names
    assert {"CollaborativePruning.lr", "Evaluation.fid_weights", "compress.size", "compare.jobs"} <= names
    assert len(CASES) > 200


@pytest.mark.parametrize(("called", "name", "hint"), NUMBERS)
def test_a_number_has_a_range(called, name, hint):
    if name != "palette":  # whose colours are checked together
        assert [kind for kind, ruled in parts(hint) if kind in (int, float) and not ruled] == []


@pytest.mark.parametrize(("called", "name", "hint"), NUMBERS)
def test_a_number_out_of_range_is_refused(called, name, hint):
    for number in (-1, -0.5, float("nan"), float("inf"), -float("inf")):
        assert_refused(called, name, shaped(number, hint))
    if "budget" not in name or name == "budget_weight":  # above the teacher, which is told once that is known
        for number in (1e30, 10**30, 10**400):
            assert_refused(called, name, shaped(number, hint))


@pytest.mark.parametrize(("called", "name", "hint"), NUMBERS)
def test_a_number_is_zero_only_where_that_means_none(called, name, hint):
    full = f"{called.__name__}.{name}"
    if {name, full} & MAY_BE_ZERO and full not in NEVER_ZERO:
        assert fits(shaped(0, hint), hint)
    else:
        assert_refused(called, name, shaped(0, hint))


@pytest.mark.parametrize(("called", "name", "hint"), CASES)
def test_a_value_of_another_type_is_refused(called, name, hint):
    kinds = [kind for kind, _ in parts(hint)]
    nonsense: list[Any] = [""]
    if str not in kinds:
        nonsense += ["nonsense", "0.5"]
    if bool not in kinds:
        nonsense += [True]
    if not numeric(hint):
        nonsense += [3.5]
    for value in nonsense:
        assert_refused(called, name, value)


# -- the checks themselves -----------------------------------------------------------------------------


@checked
def example(
    lr: Rate,
    names: Annotated[list[str], Items()] | None = None,
    size: Count | tuple[Count, Count] = 1,
    files: dict[str, str] | str = "a",
    mode: Literal["a", "b", 3] = "a",
    network: nn.Module | None = None,
) -> float:
    """Return the rate."""
    return lr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 0}, "lr of example is 0: give a number above 0 and at most 1."),
        ({"lr": "a"}, "lr of example is 'a': give a number above 0 and at most 1."),
        ({"names": []}, "names of example is []: give a list, each item a text (at least 1 of them), or"),
        ({"names": "a"}, "names of example is 'a': give a list"),
        ({"names": ["a", ""]}, "names of example is ['a', '']: give a list"),
        (
            {"size": (1, 0)},
            "size of example is (1, 0): give a whole number from 1 to 1,000,000,000 or a list",
        ),
        ({"size": (1, 2, 3)}, "size of example is (1, 2, 3)"),
        ({"files": {"a": 1}}, "files of example is {'a': 1}: give a mapping, each value a text or a text."),
        ({"mode": "c"}, "mode of example is 'c': give a or b or 3."),
        ({"mode": True}, "mode of example is True: give a or b or 3."),
        ({"network": "c"}, "network of example is 'c': give a Module, or leave it out."),
        ({"network": 3}, "network of example is 3: give a Module, or leave it out."),
    ],
)
def test_a_refusal_names_option_value_and_remedy(given, words):
    with pytest.raises(UserError, match=re.escape(words)):
        example(**{"lr": 0.5} | given)


def test_what_fits_passes():
    assert example(np.float32(0.5), ("a",), (1, np.int64(2)), {"a": "b"}, 3, nn.Identity()) == 0.5
    assert example(1, None, [3, 4], Path("there")) == 1


def test_a_call_that_python_refuses_is_refused_by_python():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'lr'"):
        example()
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        example(0.5, rate=1)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model.lr=-1", "lr of CompressionModule is -1.0: give a number above 0 and at most 1."),
        (
            "--model.budget=30%",
            "budget of CompressionModule is '30%': give a fraction of the teacher's MACs (0.3, not 30%), or "
            "MACs of 1000 or more (2.4G) or a list of such (at least 1 of them).",
        ),
        ("--model.budget=[]", "budget of CompressionModule is []: give a fraction of the teacher's MACs"),
        ("--model.budget=1.5", "budget of CompressionModule is 1.5: give a fraction of the teacher's MACs"),
        ("--data.batch_size=0", "batch_size of SyntheticFacades is 0: give a whole number from 1 to"),
        ("--trainer.callbacks.temperature=.nan", "temperature of CollaborativePruning is nan: give a number"),
        ("--trainer.callbacks.cache_dir=", "cache_dir of CollaborativePruning is '': give a text"),
    ],
)
def test_a_run_is_refused_before_it_begins(option, words, facades, tmp_path, capsys):
    args = tiny.compression(tmp_path / "run", tmp_path / "teacher.ckpt")
    code, said = tiny.fail_code(capsys, [*args, *facades, option])
    assert (code, words in said, said.count("\n")) == (2, True, 1), said
    assert list(tmp_path.iterdir()) == []


def test_a_command_is_refused(capsys):
    code, said = tiny.fail_code(capsys, ["export", "--ckpt_path=x", "--size=-3"])
    words = "a whole number from 1 to 65,536"
    assert code == 2
    assert said == f"error: size of export is -3: give {words} or a list of 2 such, or leave it out.\n"
