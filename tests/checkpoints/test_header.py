"""The header of training checkpoints."""

import dataclasses
from pathlib import Path

import pytest
import tiny

from lightning_gancompress.checkpoints.header import KEY, Header, Search, kind_of
from lightning_gancompress.checkpoints.recorded_settings import recorded_settings
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.tasks import Role, Side

OLD = Path(__file__).parent / "old"


def header(**fields):
    known = {
        "kind": "compression",
        "phase": "finetune",
        "networks": {"student.generator": NetworkSpec("some.Class", {"width": 2}, widths={"a": [3, 2]})},
        "preprocessing": {"crop_size": 32},
        "compressed": (Role("generator_AtoB"),),
        "partner": "frozen",
        "sides": {Side.GENERATOR: [Role("generator_AtoB")]},
        "ignored_layers": {Side.GENERATOR: ["head"], Side.DISCRIMINATOR: []},
        "search": Search(
            "UniformWidth", 0, {Side.GENERATOR: 0.1, Side.DISCRIMINATOR: "2G"}, "exact", 1, 8, "fresh"
        ),
        "versions": {"torch": "2.6"},
    }
    return Header(**(known | fields))


def plain(value):
    """Whether a value is of exactly those types that a checkpoint may hold."""
    if isinstance(value, dict):
        return type(value) is dict and all(type(key) is str and plain(v) for key, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return type(value) in (str, int, float, bool, type(None))


@pytest.mark.parametrize("search", [None, header().search])
def test_what_is_written_is_read(search):
    written = header(search=search).to_dict()
    assert plain(written)
    assert Header.of({KEY: written, "state_dict": {}}, "x.ckpt") == header(search=search)


@pytest.mark.parametrize("name", ["teacher", "search", "finetune", "cyclegan"])
def test_headers_of_before(name):
    """Releases before 0.2 recorded neither what the search decided nor versions."""
    content = tiny.read(OLD / f"{name}.ckpt")
    found = Header.of(content, name)
    assert found.search is None
    assert found.compressed == (Role("generator_AtoB" if name == "cyclegan" else "generator"),)
    assert found.to_dict() == content[KEY] | {"versions": {}}


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "other"},
        {"phase": "teacher"},
        {"networks": []},
        {"networks": None},
        {"preprocessing": 3},
        {"wanted": "generator"},
        {"wanted": 1},
        {"sides": {"left": []}},
        {"search": {"policy": "UniformWidth"}},
        {"search": 1},
        {"versions": 2},
        {"seed": "x"},
        {"began": []},
        {"epoch": 3},
    ],
    ids=str,
)
def test_a_damaged_header_is_one_sentence(damage):
    content = {KEY: header().to_dict() | damage, "state_dict": {}}
    with pytest.raises(UserError, match=r"(x.ckpt is damaged|is no role|no description of a network)"):
        Header.of(content, "x.ckpt")


def test_other_versions_and_other_files():
    with pytest.raises(UserError, match="format version 9, and this release reads version 1"):
        Header.of({KEY: header().to_dict() | {"version": 9}, "state_dict": {}}, "x.ckpt")
    with pytest.raises(UserError, match="format version None"):
        Header.of({KEY: [], "state_dict": {}}, "x.ckpt")
    with pytest.raises(UserError, match=r"x.ckpt is no training checkpoint of this project"):
        Header.of({"state_dict": {}}, "x.ckpt")


def test_settings_that_are_no_settings():
    for damage in ("text", [], {"trainer": 3}):
        with pytest.raises(UserError, match=r"settings in the checkpoint \(run_config\) are damaged"):
            recorded_settings({"run_config": damage})


def test_a_header_of_another_type_is_of_another_project():
    assert [kind_of({KEY: written}) for written in ("text", [], None, {}, {"kind": "teacher"})] == [
        *[""] * 4,
        "teacher",
    ]


@pytest.mark.parametrize(("was", "now"), [(1.0, 1), (0.1, "0.1"), ("2G", "2G")])
def test_equal_budgets_are_no_change(was, now):
    first, again = (
        dataclasses.replace(header().search, budgets={Side.GENERATOR: budget, Side.DISCRIMINATOR: 0.5})
        for budget in (was, now)
    )
    header(search=first).require_same_search("frozen", again, Path("x.ckpt"))
    other = dataclasses.replace(again, budgets={Side.GENERATOR: 0.7, Side.DISCRIMINATOR: 0.5})
    with pytest.raises(UserError, match=r"model.budget: 0.7 comes too late, x.ckpt began with"):
        header(search=first).require_same_search("frozen", other, Path("x.ckpt"))
