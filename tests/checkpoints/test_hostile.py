"""Damaged and hostile files are one sentence, before memory is taken for what they claim."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoint_io import AtomicCheckpointIO
from lightning_gancompress.checkpoints import load_networks, save_small
from lightning_gancompress.checkpoints.resumable import require_fitting, require_fitting_gradients
from lightning_gancompress.networks import NetworkSpec, ResnetGenerator, UnetGenerator

OLD = Path(__file__).parent / "old"
ARGUMENTS = {"ngf": 2, "n_blocks": 1}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small model."""
    spec = NetworkSpec("lightning_gancompress.networks.ResnetGenerator", ARGUMENTS)
    path = tmp_path / "generator.pth"
    save_small(ResnetGenerator(**ARGUMENTS), spec, path, preprocessing={"crop_size": 32}, provenance={})
    return path


def put(content: Any, place: str, value: Any) -> None:
    *path, last = place.split("/")
    for part in path:
        content = content[part]
    content[last] = value


DESCRIPTIONS: dict[str, Any] = {
    "network/widths/model.1": (
        [3, 10**9],
        [3, 2**15],
        [3, -5],
        [],
        [3],
        [3, 2, 0],
        [3, 2, 7],
        [3, "2"],
        5,
        None,
    ),
    "network/widths/model.2": ([2.0], [True], {"a": 1}),
    "network/widths": ([], "x", 1),
    "network/init_args/ngf": (10**9, -5, 0, 2.5, "2", [], True, 2**63),
    "network/init_args/n_blocks": (10**5, -1, None),
    "network/init_args/norm": ("evil", 3, []),
    "network/init_args/init": ("evil", None),
    "network/init_args/init_gain": ("x", []),
    "network/init_args/other": (1,),
    "network/init_args": ([], 7, "x"),
    "network/batch_norm": ("batch", 3, None, []),
    "network/class_path": (
        None,
        3,
        [],
        "",
        "x",
        "lightning_gancompress.networks",
        "lightning_gancompress.networks.X",
    ),
    "network/from_file": (False,),
    "network": (None, [], 1, {}),
    "preprocessing": (None, [], 1),
    "preprocessing/crop_size": (10**9, -5, 0, "x", [], [1], [1, 2, 3], True, 1.5),
    "preprocessing/in_channels": (10**9, 0, "3"),
    "provenance": ([], 1),
    "version": (None, "1", [], 2**70),
}


@pytest.mark.parametrize(
    ("place", "value"), [(place, v) for place, all_ in DESCRIPTIONS.items() for v in all_]
)
def test_a_description(place: str, value: Any, file: Path) -> None:
    description = json.loads(file.with_suffix(".json").read_text())
    put(description, place, value)
    file.with_suffix(".json").write_text(json.dumps(description))
    with pytest.raises(UserError) as refused:
        load_generator(file)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700


def test_a_deep_unet(tmp_path: Path) -> None:
    """Each of its levels lies within another."""
    spec = NetworkSpec("lightning_gancompress.networks.UnetGenerator", {"ngf": 1, "n_downs": 100_000})
    save_small(UnetGenerator(ngf=1, n_downs=5), spec, tmp_path / "a.pth", preprocessing={}, provenance={})
    with pytest.raises(UserError, match=r"n_downs is 100000, not a whole number from 0 to"):
        load_generator(tmp_path / "a.pth")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\0", "NaN", '"\\ud800"', "\ufeff{}"])
def test_a_description_that_is_none(text: str, file: Path) -> None:
    file.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match=r"generator\.json"):
        load_generator(file)


@pytest.mark.parametrize("widths", [[3, 2**15], [3, -5], [0, 2], [3, 2, 0]])
def test_widths_of_a_network_that_the_user_brings(widths: list[int], file: Path) -> None:
    description = json.loads(file.with_suffix(".json").read_text())
    description["network"]["widths"]["model.1"] = widths
    file.with_suffix(".json").write_text(json.dumps(description))
    with pytest.raises(UserError):
        load_generator(file, architecture=ResnetGenerator(**ARGUMENTS))


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


ENTRIES: dict[str, Callable[[], Any]] = {
    "a number": lambda: 3,
    "a list": lambda: [1.0, 2.0],
    "nothing": lambda: None,
    "a table": lambda: {"a": torch.zeros(1)},
    "depth": lambda: nested(200),
    "sparse": lambda: torch.zeros(2, 3, 7, 7).to_sparse(),
    "a shape without numbers": lambda: torch.zeros(1).expand(10**6, 10**6),
    "no numbers": lambda: torch.empty(2, 3, 7, 7, device="meta"),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", ["small", "upstream", "checkpoint"])
def test_a_state_dict_with_another_entry(entry: str, kind: str, file: Path) -> None:
    value, key = ENTRIES[entry](), "model.1.weight"
    if kind == "checkpoint":
        content = tiny.read(OLD / "finetune.ckpt")
        content["state_dict"][f"student.generator.{key}"] = value
        file = file.with_name("last.ckpt")
    else:
        content = tiny.read(file)
        content[key] = value
    if kind == "upstream":
        file = file.with_name("latest_net_G.pth")
    torch.save(content, file)
    with pytest.raises(UserError) as refused:
        load_generator(file)
    assert "\n" not in str(refused.value)


HEADERS: dict[str, Any] = {
    "kind": ("x", None, 1, []),
    "phase": ("x", None, {}),
    "networks": ([], None, {"a": 1}, {"student.generator": None}, {"student.generator_../x": {}}, {1: {}}),
    "preprocessing": (None, [], {"crop_size": -1}),
    "wanted": ("generator", [1], ["x"], ["generator_../../x"], {}),
    "partner": (1, []),
    "sides": ([], {"x": []}, {"generator": 1}),
    "ignored_layers": ([], {"generator": "a"}, {"generator": [1]}),
    "search": ([], {}, 1),
    "versions": ([], {"torch": 1}),
    "version": (None, 2, "1", torch.zeros(2)),
}


@pytest.mark.parametrize(("entry", "value"), [(entry, v) for entry, all_ in HEADERS.items() for v in all_])
def test_a_header(entry: str, value: Any, tmp_path: Path) -> None:
    content = tiny.read(OLD / "finetune.ckpt")
    content["gancompress"][entry] = value
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt"):
        load_networks(tmp_path / "last.ckpt")


STATES: dict[str, Any] = {
    "pytorch-lightning_version": ("x", None, 2, "9" * 300),
    "epoch": (-1, "1", None, 10**30),
    "global_step": (-1, 1.5),
    "loops": ([], {"fit_loop": 1}, {"fit_loop": {"epoch_progress": {"total": {"ready": -1}}}}),
    "callbacks": ([], {"LastCheckpoint": 1}),
    "optimizer_states": ({}, [1], [{}], [{"state": {}, "param_groups": [{"params": 1}]}]),
    "lr_schedulers": (1,),
    "image_pools": (
        [],
        {"generator": 1},
        {"generator": torch.zeros(1)},
        {"generator": []},
        {"generator": [torch.zeros(1)]},
        {"generator": [[torch.zeros(1)]]},
        {"generator": [[torch.zeros(3, 2, 2).long()]]},
    ),
    "gradient_window": (
        [],
        {},
        {"batches": 0, "gradients": {}},
        {"batches": 2, "gradients": []},
        {"batches": 2, "gradients": {"generator": None}},
        {"batches": 2, "gradients": {"generator": [1]}},
        {"batches": 2, "gradients": {"generator": [torch.zeros(1).long()]}},
    ),
    "averages": (
        [],
        {},
        {"steps": -1, "trained": {}},
        {"steps": 1, "trained": {"a": 1}},
        {"steps": 1, "trained": {"a": torch.zeros(1)}},
        {"steps": 1, "trained": {"student.generator.model.1.weight": torch.zeros(1)}},
    ),
    "state_dict": ([], {"a": 1}, None),
}


def test_a_file_that_lightning_has_not_written(tmp_path: Path) -> None:
    content = tiny.read(OLD / "finetune.ckpt")
    del content["pytorch-lightning_version"]  # which it looks for without a check
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="pytorch-lightning_version is None"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize(("entry", "value"), [(entry, v) for entry, all_ in STATES.items() for v in all_])
def test_what_lightning_restores(entry: str, value: Any, tmp_path: Path) -> None:
    content = tiny.read(OLD / "finetune.ckpt")
    AtomicCheckpointIO().load_checkpoint(OLD / "finetune.ckpt")
    content[entry] = value
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("state", [torch.zeros(3), torch.zeros(2).long(), "x", None])
def test_a_state_of_an_optimizer(state: Tensor | str | None) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    require_fitting([optimizer])
    optimizer.state[parameter]["exp_avg"] = state
    with pytest.raises(UserError, match=r"ckpt_path: .* optimizer doesn't fit"):
        require_fitting([optimizer])


@pytest.mark.parametrize(
    ("name", "gradients"),
    [("generator", [None, None]), ("generator", [torch.zeros(3)]), ("other", [torch.zeros(2)])],
)
def test_gradients_of_other_parameters(name: str, gradients: list[Tensor | None]) -> None:
    optimizers = {"generator": torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])}
    require_fitting_gradients({"generator": [torch.zeros(2)]}, optimizers)
    with pytest.raises(UserError, match=r"ckpt_path: .* gradients of .* don't fit"):
        require_fitting_gradients({name: gradients}, optimizers)
