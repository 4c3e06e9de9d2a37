"""The notebooks run from top to bottom, on tiny sizes in place of their cells of parameters."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SIZES = {"n_train": 16, "n_val": 4, "n_test": 4, "size": 32, "batch_size": 4}


def cells(name):
    return json.loads((NOTEBOOKS / name).read_text())["cells"]


def run(name, parameters):
    """Run the cells of code in the present folder; the names that they leave behind."""
    names = {"__name__": "notebook"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plt, "show", lambda *args, **kwargs: None)
        for cell in cells(name):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{name}:{cell['id']}", "exec"), names)
                if "parameters" in cell["metadata"].get("tags", []):
                    assert parameters.keys() <= names.keys()
                    names |= parameters
    plt.close("all")
    return names


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """The folder in which the first notebook ran, and its names."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny = {"size": 32, "images": 16, "teacher_epochs": 2, "search_epochs": 1, "epochs": 2, "width": 8}
        return folder, run("compress_pix2pix.ipynb", {**tiny, "downs": 5})


def test_a_pix2pix_becomes_a_small_onnx_file(compressed):
    folder, names = compressed
    assert names["facts"]["max_difference"] < 1e-4
    assert (folder / "runs/small/generator.onnx").is_file()
    macs = [names["count_macs"](names[network], [names["sample"]]) for network in ("small", "whole")]
    assert macs[0] <= 0.2 * macs[1]


def test_a_finished_run_is_read(compressed, monkeypatch):
    folder, _ = compressed
    monkeypatch.chdir(folder)
    names = run("read_run.ipynb", {"run": "runs/small"})
    assert names["shown"] == names["names"]
    assert all(len(names["curve"](name)[0]) for name in names["names"])
    assert sum(names["widths"][1]) < sum(names["widths"][0])


def test_teacher_and_student_side_by_side(compressed, monkeypatch, capsys):
    folder, _ = compressed
    monkeypatch.chdir(folder)
    run("compare.ipynb", {"run": "runs/small", "facades": SIZES})
    assert "student: " in capsys.readouterr().out


def test_own_generator_and_policy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run("own_generator_and_policy.ipynb", {"size": 32, "images": 16, "epochs": 1, "search_epochs": 1})
    out = capsys.readouterr().out
    assert all(f"\n{name}: " in out for name in ("yours", "largest filter", "agents"))
    macs = names["count_macs"]
    for network in names["small"].values():
        assert macs(network, [names["source"][:1]]) <= 0.4 * macs(names["generator"], [names["source"][:1]])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
    code = [cell for cell in cells(path.name) if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
