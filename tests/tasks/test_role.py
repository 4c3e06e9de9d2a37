"""Roles and sides."""

import copy
import pickle
import re
from pathlib import Path

import pytest
from torch import nn

import lightning_gancompress
from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks import CycleGAN, Pix2Pix, Role, Side

ONE, THERE, BACK = Role("generator"), Role("generator_AtoB"), Role("generator_BtoA")


def test_a_role_knows_its_side_and_direction():
    assert [(role.side, role.direction) for role in (ONE, THERE)] == [
        (Side.GENERATOR, ""),
        (Side.GENERATOR, "AtoB"),
    ]
    assert [role.suffix for role in (ONE, THERE)] == ["", "_AtoB"]
    assert [role.log_prefix for role in (ONE, THERE)] == ["", "AtoB/"]
    assert [role.direction_text for role in (ONE, THERE)] == ["", "A to B"]


def test_a_role_knows_the_others():
    assert (ONE.discriminator, ONE.partner) == ("discriminator", None)
    assert (THERE.discriminator, THERE.partner) == ("discriminator_AtoB", BACK)
    assert THERE.discriminator.generator == THERE
    assert THERE.discriminator.partner == "discriminator_BtoA"
    assert Role.of(Side.GENERATOR, "day_to_night").suffix == "_day_to_night"
    assert (Side.GENERATOR.peer, Side.DISCRIMINATOR.peer) == (Side.DISCRIMINATOR, Side.GENERATOR)


def test_a_role_is_its_name():
    networks = nn.ModuleDict({THERE: nn.Identity()})
    assert networks["generator_AtoB"] is networks[THERE]
    assert [type(copy.deepcopy(THERE)), type(pickle.loads(pickle.dumps(THERE)))] == [Role, Role]
    assert type(str(THERE)) is str
    assert f"{Side.GENERATOR}" == "generator"
    assert (
        {"generator": 1}[Side.GENERATOR]
        == {Side.GENERATOR: 1}["generator"]
        == {Role("generator"): 1}["generator"]
    )


@pytest.mark.parametrize("name", ["", "teacher", "generators", "Generator", "netG_A"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="is no role of a network: it must be generator or discriminator"):
        Role(name)


@pytest.mark.parametrize("task", [Pix2Pix(), CycleGAN("AtoB"), CycleGAN()])
def test_the_tasks_have_roles(task):
    for role in (*task.generators, *task.discriminators, *task.compressed):
        assert type(role) is Role
    assert [role.discriminator for role in task.generators] == list(task.discriminators)


def test_no_role_is_taken_apart_elsewhere():
    """A name is parsed by `Role` alone: another task may have other directions."""
    package = Path(lightning_gancompress.__file__).parent
    apart = re.compile(
        r"""role\w*\.(partition|rpartition|split|removeprefix|removesuffix|startswith|endswith)\(|"""
        r"""(removeprefix|startswith|partition)\(\s*f?["'](generator|discriminator)|"""
        r"""f["'](generator|discriminator)_\{"""
    )
    found = [
        f"{path.relative_to(package)}:{number}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        if path.name != "role.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if apart.search(line)
    ]
    assert found == []
