import ast
import json
from pathlib import Path

import pytest

import lightning_gancompress
from lightning_gancompress.evaluation import metrics
from lightning_gancompress.evaluation.metrics import (
    METRICS,
    Metric,
    in_order,
    metric,
    register,
    registered,
)

PACKAGE = Path(lightning_gancompress.__file__).parent
OLD = Path(__file__).parents[1] / "checkpoints" / "old" / "results.json"
# the same words for other things: losses, and groups of an optimizer
OTHER_MEANING = {
    "checkpoints/resumable.py": {"params"},
    "demo/models.py": {"macs_exact"},  # in the metadata of an ONNX file
    "export/onnx.py": {"macs_exact"},
    "modules/base.py": {"params"},
    "modules/optimizers.py": {"params"},
    "finetune/distillation.py": {"ssim"},
    "reporting/page/curve_charts.py": {"l1"},
    "search/collaborative.py": {"params", "teacher_l1"},
    "training/narrowing.py": {"params"},
}
EVERYDAY = {"bytes", "density", "precision"}


def test_every_figure_of_a_test_registered():
    results = json.loads(OLD.read_text())
    names = [name for figures in results["networks"].values() for name in figures]
    names += [name for name in results if name.startswith("teacher_")]
    assert len(set(names)) == 12
    assert all(map(registered, names))


def test_metric_names_stand_in_one_file():
    """And where they are computed."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        if place == "evaluation/metrics.py" or place.startswith("metrics/"):
            continue
        texts = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        names = {text for text in texts if isinstance(text, str) and text not in EVERYDAY}
        names = {name for name in names if registered(name)} - OTHER_MEANING.get(place, set())
        found |= {place: names} if names else {}
    assert found == {}


@pytest.mark.parametrize(
    ("name", "value", "heading", "text", "better"),
    [
        ("macs_exact", 1.5e9, "MACs (exact)", "1.5 G", "lower"),
        ("params", 11_378_179, "Parameters", "11.38 M", "lower"),
        ("latency_onnx_ms", 12.3456, "Latency, ONNX", "12.35 ms", "lower"),
        ("psnr", 20.456, "PSNR", "20.46 dB", "higher"),
        ("fid", 61.2345, "FID", "61.234", "lower"),
        ("fid_768", 1.5, "FID-768", "1.500", "lower"),
        ("kid_64", 0.0123456, "KID-64 x 1000", "12.346", "lower"),
        ("teacher_l1", 0.12345, "L1 to the teacher", "0.1235", "lower"),
        ("teacher_recall", 0.5, "Recall to the teacher", "0.5000", "higher"),
        ("density", 1.2, "Density", "1.2000", None),
        ("own_words", 12345.6, "own words", "1.235e+04", None),
    ],
)
def test_how_figures_are_shown(name, value, heading, text, better):
    found = metric(name)
    assert (found.name, found.heading, found.format(value), found.better) == (name, heading, text, better)


def test_users_register_their_own_and_change_none_of_ours(monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", dict(METRICS))
    register(Metric("dots", "Dots", "%", "lower", 1, 100), Metric("psnr", "Mine"))
    assert metric("dots").format(0.256) == "25.6 %"
    assert metric("teacher_dots").heading == "Dots to the teacher"
    assert metric("psnr").label == "PSNR"
    assert registered("dots_8")


def test_order_of_tables():
    names = ["own", "teacher_l1", "kid_768", "fid_768", "fid_64", "l1", "macs_exact", "l1"]
    assert in_order(names) == ["macs_exact", "l1", "fid_768", "fid_64", "kid_768", "own", "teacher_l1"]
