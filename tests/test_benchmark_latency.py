"""The benchmark of latency still knows the networks that it times."""

import json

import benchmark_latency
import pytest


def test_a_table_of_tiny_students(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "latency.json"
    tiny = ["--ngf=4", "--size=32", "--budgets=0.5", "--multiples=2", "--threads=1", "--rounds=1"]
    kinds = ["--scores=uniform", "--runtimes", "channels_last", "onnx"]
    benchmark_latency.main([*tiny, *kinds, f"--json={path}"])
    rows = json.loads(path.read_text())["rows"]
    assert [(row["multiple"], row["runtime"]) for row in rows] == [(2, "channels_last"), (2, "onnx")]
    for row in rows:
        assert row["macs_ratio"] >= 2
        assert row["share"] * row["macs_ratio"] == pytest.approx(row["speedup"])
        assert row["student_ms"] > 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)


def test_the_time_of_a_process_is_not_that_of_two_threads(capsys):
    with pytest.raises(SystemExit):
        benchmark_latency.main(["--clock=process", "--threads", "1", "2"])
    assert "--threads 1" in capsys.readouterr().err
