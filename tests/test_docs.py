"""The README and the guides: commands are accepted, snippets run, names exist, the site builds."""

import functools
import importlib
import re
import shlex
import shutil
from pathlib import Path

import documents
import pytest
import tiny
from PIL import Image

from lightning_gancompress.cli import main
from lightning_gancompress.shipped_configs import configs_folder

ROOT = documents.DOCS.parent
# pages whose commands and files are read by the parser; the code of others runs (`documents.run`)
READ = [
    "../README.md",
    "data_folders.md",
    "faq.md",
    "own_checkpoints.md",
    "options.md",
    "reading_the_report.md",
    "reproducing.md",
    "running.md",
]
PROGRAM = re.compile(r"(?:python -m lightning_gancompress|gancompress) +(.*)")


def commands(page):
    """The words of each command of this program in the blocks of a page."""
    for _, block in documents.blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            if found := PROGRAM.match(line):
                yield shlex.split(found[1].partition(" > ")[0], comments=True)


COMMANDS = [(page, words) for page in READ for words in commands(page)]


@functools.cache
def _extras():
    text = (ROOT / "pyproject.toml").read_text()
    return set(re.findall(r"^(\w+) = \[", text.partition("optional-dependencies]")[2], re.MULTILINE))


@pytest.fixture
def run_folder(tmp_path, unet, monkeypatch):
    """A working folder with the checkpoints, small models and configurations that pages name."""
    monkeypatch.chdir(tmp_path)
    for page in READ:
        for _, block in documents.blocks(page):
            if file := re.match(r"# (\S+\.yaml)\n", block):
                Path(file[1]).write_text(block)
    for page, words in COMMANDS:
        for word in words:
            if page and word.endswith(".ckpt"):
                Path(word).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(unet, word)
    return tmp_path


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda value: " ".join(value)[-60:])
def test_a_command_is_accepted(page, words, run_folder, capsys):
    """The parser takes all of its options and configurations."""
    if words[0].startswith("--"):  # has a test of its own
        assert words[0] == "--print_completion"
        return
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])  # which ends after it
    assert not stop.value.code, capsys.readouterr().err
    assert ":" in capsys.readouterr().out


@pytest.mark.parametrize("page", READ)
def test_other_commands_name_what_there_is(page):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for _, block in documents.blocks(page):
        for line in block.splitlines():
            words = shlex.split(line, comments=True) if line.startswith(("make ", "pip ")) else []
            if words[:1] == ["make"]:
                assert set(words[1:]) <= set(targets)
            for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
                assert set(extra.split(",")) <= _extras()


@pytest.mark.parametrize("page", READ)
def test_named_configurations_ship_or_stand_on_a_page(page):
    text = (documents.DOCS / page).read_text()
    texts = [(documents.DOCS / other).read_text() for other in READ]
    written = {name for other in texts for name in re.findall(r"# (\S+\.yaml)\n", other)}
    for name in re.findall(r"`(\w+\.yaml)`", text):
        assert (configs_folder() / name).is_file() or name in {*written, "config.yaml", "defaults.yaml"}


def test_the_snippets_run(run_folder, unet, facades):
    """Those of the README and of the page on reports, on a small U-Net and the results of a test."""
    main(["test", "--ckpt_path", str(unet), "--trainer.default_root_dir", "runs/quickstart"])
    main([*tiny.compression(run_folder / "runs/pix2pix_facades", unet, "UniformWidth"), *facades])
    Image.new("RGB", (50, 40)).save("photo.jpg")
    for page in READ:
        for language, block in documents.blocks(page):
            if language == "python":
                names = {}
                exec(compile(block, page, "exec"), names)
                assert names.get("results", True)
                assert "Translator" not in names or Image.open("translated.png").size == (50, 40)
                assert tuple(getattr(names.get("photo"), "shape", (1, 3, 256, 256))) == (1, 3, 256, 256)


def test_the_method_names_what_there_is():
    found = re.findall(r"^\| .* \| (`.*`) \|", (documents.DOCS / "method.md").read_text(), re.MULTILINE)
    room = ""
    for name in (name for row in found for name in re.findall(r"`([\w.]+)`", row)):
        room = name.rpartition(".")[0] or room  # of the name before it
        exists(f"lightning_gancompress.{room}", name.rpartition(".")[2])


def exists(room, name):
    module, rest = room, []
    while True:
        try:
            value = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    for part in [*rest, name]:
        try:
            value = getattr(value, part)
        except AttributeError:
            value = importlib.import_module(f"{value.__name__}.{part}")


def test_the_site_builds(tmp_path, monkeypatch):
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site"))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)  # a warning, such as of a link that leads nowhere, raises
    page = (tmp_path / "site/api/index.html").read_text()
    assert "Compress a generator to a budget" in page
    assert r"\frac{B}{T_0}" in (tmp_path / "site/method/index.html").read_text()
