"""The document for people with pictures of their own runs as it is written."""

import documents
import pytest

from lightning_gancompress.reporting.grid import cut


def test_the_page_runs(tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    documents.run("own_data.md", tmp_path)
    said = capsys.readouterr().out
    seen = "train: 16 pairs, source and target such as labels/img_1_L.png and photos/IMG_1.JPG"
    assert seen in said
    assert seen in (documents.DOCS / "own_data.md").read_text()
    assert [list(row) for row in cut(tmp_path / "data_check.png")] == [["source", "target"]] * 8
    session = onnxruntime.InferenceSession(str(tmp_path / "runs/street/generator.onnx"))
    assert session.get_inputs()[0].shape[1:] == [3, 32, 32]
    assert (tmp_path / "runs/street/report.html").is_file()
    assert (tmp_path / "runs/street/test/grid.png").is_file()
