import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_gancompress import UserError
from lightning_gancompress.evaluation import metrics
from lightning_gancompress.evaluation.metrics import METRICS, Metric, metric, register
from lightning_gancompress.evaluation.results import (
    LatencyResult,
    NetworkResults,
    RuntimeFacts,
    TestResults,
)
from lightning_gancompress.evaluation.table import table

OLD = Path(__file__).parents[1] / "checkpoints" / "old" / "results.json"


def test_files_without_a_version_are_read_and_keep_their_shape():
    results, old = TestResults.read(OLD), json.loads(OLD.read_text())
    assert (results.phase, results.images, results.size, results.trained) == (
        "finetune",
        8,
        (32, 32),
        "student",
    )
    assert results.networks["student"].figures["macs_exact"] == 534528
    assert results.networks["teacher"].figures["latency_ms"] == pytest.approx(0.516, abs=1e-3)
    assert results.networks["teacher"].latencies["latency_ms"].repetitions == 20
    assert results.comparison["teacher_psnr"] == pytest.approx(20.86, abs=1e-2)
    assert results.latency["torch"].speedup == pytest.approx(1.206, abs=1e-3)
    assert results.to_json() == {"version": 1, **old}
    assert "| student | 0.0005345 G | 0.000576 G | 0.001361 M |" in table(results)


def filled():
    networks = {
        "teacher": NetworkResults.of({"macs_exact": 12, "latency_ms": LatencyResult(2.0, 1.0, 3.0, 5)}),
        "student": NetworkResults.of({"macs_exact": 3, "psnr": 20.0, "spots": 0.25}),
    }
    latency = {"torch": RuntimeFacts("CPU", 1, "torch 3", 2.0), "onnx": RuntimeFacts(failed="no")}
    facts = {"fid_reals": "test", "fid": {"feature": 64, "n_real": 5}, "spots": {"angle": 1}}
    return TestResults("finetune", 7, (16, 24), networks, {"teacher_l1": 0.5}, latency, facts)


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "results.json").write_bytes(filled().to_bytes())
    results = TestResults.read(tmp_path / "results.json")
    assert results == filled()
    assert results.names == ["macs_exact", "latency_ms", "psnr", "spots", "teacher_l1"]
    assert results.protocol == {
        "images": "7",
        "size": "[16, 24]",
        "fid_reals": "test",
        "fid.feature": "64",
        "fid.n_real": "5",
        "spots.angle": "1",
    }


def test_metrics_of_users_are_described_in_the_file(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "METRICS", dict(METRICS))
        patch.setattr("lightning_gancompress.evaluation.results.METRICS", metrics.METRICS)
        register(Metric("spots", "Spots", "%", "lower", 1, 100))
        (tmp_path / "results.json").write_bytes(filled().to_bytes())
    monkeypatch.setattr(metrics, "METRICS", dict(METRICS))
    assert metric("spots").label == "spots"
    assert TestResults.read(tmp_path / "results.json").networks["student"].figures["spots"] == 0.25
    assert metric("spots") == Metric("spots", "Spots", "%", "lower", 1, 100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks": {}}, "networks is empty"),
        ({"networks": [1]}, "networks is not a table"),
        ({"networks": {"student": {"psnr": "high"}}}, r"student\.psnr is 'high', not float"),
        ({"networks": {"student": {"psnr": True}}}, r"student\.psnr is True"),
        ({"networks": {"student": {"latency_ms": {"median_ms": 1.0}}}}, r"latency_ms is not complete"),
        ({"images": 1.5}, "images is 1.5, not int"),
        ({"size": [16]}, r"size is \[16\]"),
        ({"phase": None}, "phase is None, not str"),
        ({"latency": {"torch": {"threads": "two"}}}, r"latency\.torch\.threads is 'two'"),
        ({"metrics": {"own": {"label": "Own", "better": "up"}}}, r"metrics\.own\.better is 'up'"),
        ({"version": 2}, "version 2 is of a later release"),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, change, words):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(filled().to_json() | change))
    with pytest.raises(UserError, match=rf"results\.json holds no results of a test \(.*{words}") as caught:
        TestResults.read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("remove it, or test again.")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"networks": {"a": {}}}', "[" * 100_000])
def test_files_of_something_else_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match="holds no results of a test"):
        TestResults.read(tmp_path / "results.json")
    with pytest.raises(UserError, match=r"gone\.json holds no results of a test .*No such file"):
        TestResults.read(tmp_path / "gone.json")


def test_entries_of_a_later_release_are_passed_over():
    data = filled().to_json()
    data["networks"]["student"] |= {"notes": "none", "phases": [1], "more": {"a": 1}}
    data["latency"]["torch"]["cores"] = 4
    assert TestResults.parse(data) == filled()


def test_results_are_read_without_lightning():
    code = "import sys, lightning_gancompress.evaluation.results as r; print('lightning' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"
