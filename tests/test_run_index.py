"""README.txt of a run's folder names what is there."""

import re

import pytest
import tiny

from lightning_gancompress.cli import main
from lightning_gancompress.run_folder import INDEX
from lightning_gancompress.run_index import write_index


@pytest.fixture(scope="module")
def run(unet, facades, tmp_path_factory):
    """The folder of a compression that has been tested."""
    folder = tmp_path_factory.mktemp("index")
    main([*tiny.compression(folder, unet, "UniformWidth"), *facades])
    return folder


def told(folder):
    lines = re.findall(r"^(\S.*?)(?: and \d+ more)?\n    \S", (folder / INDEX).read_text(), re.MULTILINE)
    return [name for line in lines for name in line.split(", ")]


def test_every_file_of_a_run_is_told_of_and_is_there(run):
    names = told(run)
    assert {"report.html", "generator.pth", "generator.json", "checkpoints/last.ckpt", "config.yaml"} <= set(
        names
    )
    assert all((run / name).exists() for name in names)
    listed = {name.rpartition("/")[0] or name for name in names}
    made = {path.name for path in run.iterdir()} - {INDEX}
    assert made <= {name.partition("/")[0] for name in listed}


def test_a_test_is_told_of_as_well(run):
    main(["test", "--ckpt_path", str(tiny.last(run))])
    assert {"test/table.md", "test/results.json", "test/grid.png"} <= set(told(run))


def test_what_somebody_else_has_written_stays(run, tmp_path):
    write_index(tmp_path)
    assert not (tmp_path / INDEX).exists()  # no run
    ours = (run / INDEX).read_text()
    (run / INDEX).write_text("my notes\n")
    write_index(run)
    assert (run / INDEX).read_text() == "my notes\n"
    (run / INDEX).write_text(ours)


def test_few_files_of_a_kind_are_all_named_and_of_many_the_first(run):
    files = [run / f"generator.{number}.onnx" for number in range(7)]
    for number, file in enumerate(files):
        file.touch()
        write_index(run)
        if number == 5:
            assert {path.name for path in files[:6]} <= set(told(run))
    assert "\ngenerator.0.onnx and 6 more\n" in (run / INDEX).read_text()
    for file in files:
        file.unlink()


def test_it_goes_aside_with_its_run(run, unet, facades):
    main([*tiny.compression(run, unet, "UniformWidth"), *facades])
    assert told(run / "previous-1") == [name for name in told(run / "previous-1") if name]
    assert "previous-1" in told(run)
    assert "previous-1" not in told(run / "previous-1")
