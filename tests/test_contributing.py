"""What CONTRIBUTING.md asks for is there."""

import re
import shlex
from pathlib import Path

import documents
import pytest

from lightning_gancompress import __version__
from lightning_gancompress.shipped_configs import configs_folder

ROOT = documents.DOCS.parent
PAGES = [*ROOT.glob("*.md"), *documents.DOCS.glob("*.md")]
BLOCKS = [block for _, block in documents.blocks("../CONTRIBUTING.md")]
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_names_what_there_is(words):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[0] in ("make", "git") or Path(words[0]).parent == Path(".venv/bin")
    if words[0] == "make":
        assert set(words[1:]) <= set(targets)
    for word in words[1:]:
        assert not word.startswith("tests/") or (ROOT / word).exists()
        assert not word.endswith(".yaml") or (configs_folder() / word).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    prose = re.sub(r"^```.*?^```$|`[^`]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)]*)\)", prose):
        if not link.startswith("https:"):
            file, _, heading = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not heading or heading in headings(target), link


def headings(page):
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_one_version():
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text()
