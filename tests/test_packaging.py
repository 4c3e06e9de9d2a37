"""The wheel and the source distribution hold what a user needs, and work away from the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import tiny
import yaml

from lightning_gancompress import __version__
from lightning_gancompress.shipped_configs import configs_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, by the build tool that is installed here."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The environment variables of a process that has the wheel in place of the checkout."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(built[0])], check=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def test_the_wheel_has_package_types_configurations_and_templates(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    for path in (ROOT / "lightning_gancompress").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in names
    shipped = {f"lightning_gancompress/configs/{path.name}" for path in configs_folder().glob("*.yaml")}
    assert shipped <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "runs/"))]


def test_the_source_has_what_builds_and_tests_it(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "configs/quickstart.yaml"} <= names
    assert {"tests/tiny.py", "docs/method.md", "mkdocs.yml", "Makefile"} <= names
    assert not [name for name in names if name.startswith(("runs/", ".venv"))]


def test_a_quickstart_runs_from_another_folder(installed, tmp_path):
    """Both phases, from the configurations within the wheel."""
    few = ["--data.n_train=16", "--data.n_val=4", "--data.n_test=4", "--data.num_workers=0"]
    few += ["--model.epochs=1", "--model.decay_epochs=0", "--trainer.accelerator=cpu"]
    few += ["--trainer.limit_train_batches=2"]
    narrow = ["--model.generator.ngf=4", "--model.discriminator.ndf=4"]
    teacher = ["fit", "--config=teacher_quickstart.yaml", *few, *narrow]
    compression = ["fit", "--config=quickstart.yaml", *few, "--trainer.callbacks.search_epochs=1"]
    code = (
        "import lightning_gancompress as p; from lightning_gancompress.cli import main; print(p.__file__); "
    )
    code += f"main({teacher}); main({compression})"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, env=installed, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not Path(run.stdout.splitlines()[0]).is_relative_to(ROOT)
    folder = tmp_path / "runs/quickstart"
    assert tiny.read(tiny.last(folder))["gancompress"]["phase"] == "finetune"
    assert (folder / "generator.pth").is_file()
    assert (folder / "report.html").is_file()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
