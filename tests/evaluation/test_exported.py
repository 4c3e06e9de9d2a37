"""Exported files in a test, beside the networks."""

import json

import pytest
import torch
from tiny_module import Pairs, TinyModule, make_trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_gancompress import UserError
from lightning_gancompress.density import Encoder
from lightning_gancompress.evaluation.evaluation import Evaluation
from lightning_gancompress.evaluation.exported import ExportedFiles
from lightning_gancompress.evaluation.results import TestResults
from lightning_gancompress.export import export_onnx
from lightning_gancompress.metrics import l1
from lightning_gancompress.reporting.page.quality import quality_rows
from lightning_gancompress.tasks import Role

pytest.importorskip("onnxruntime")


class Flat(Encoder):
    def features(self, source, image):
        return image.flatten(1)


def exported(folder, network, name="student.onnx"):
    export_onnx(nn.Sequential(network, nn.Tanh()), folder / name, torch.zeros(1, 3, 16, 16))
    return str(folder / name)


def test_a_file_is_judged_as_the_networks_are(tmp_path):
    module, data = TinyModule(), Pairs(n=8)
    other = nn.Conv2d(3, 3, 1)
    files = [exported(tmp_path, module.networks["student"]), exported(tmp_path, other, "other.onnx")]
    evaluation = Evaluation(exported=files, density_encoder=Flat(), latency_repetitions=2)
    trainer = make_trainer(tmp_path, evaluation)
    trainer.test(module, DataLoader(data, batch_size=3), verbose=False)

    results = TestResults.read(tmp_path / "test" / "results.json")
    assert (results.exported, results.trained) == (("student.onnx", "other.onnx"), "student")
    same, odd = (results.networks[name].figures for name in results.exported)
    student = results.networks["student"].figures | results.comparison
    for name in ("l1", "ssim", "teacher_l1", "teacher_coverage", "teacher_ise"):
        assert same[name] == pytest.approx(student[name], rel=1e-3, abs=1e-4)
    with torch.no_grad():
        images = {"o": other(data.source).tanh(), "t": module.networks["teacher"](data.source).tanh()}
    assert odd["teacher_l1"] == pytest.approx(float(l1(images["o"], images["t"]).mean()), rel=1e-4)
    assert same["bytes"] == (tmp_path / "student.onnx").stat().st_size
    timed = {name for name, network in results.networks.items() if "latency_onnx_ms" in network.figures}
    assert timed == {"teacher", "student", *results.exported}  # beside the float ones in the same runtime
    assert "latency_ms" not in same
    assert trainer.callback_metrics["test/other.onnx/teacher_l1"] == pytest.approx(odd["teacher_l1"])

    table = (tmp_path / "test" / "table.md").read_text().splitlines()
    column = table[0].split("|").index(" L1 to the teacher ")
    cells = {row.split("|")[1].strip(): row.split("|")[column].strip() for row in table[2:6]}
    assert cells == {
        "teacher": "",
        "student": f"{student['teacher_l1']:.4f}",
        "student.onnx": f"{same['teacher_l1']:.4f}",
        "other.onnx": f"{odd['teacher_l1']:.4f}",
    }
    rows = {row.label: row for row in quality_rows(results.shown)}
    assert [*rows["L1 to the teacher"].figures] == ["teacher", "student", "student.onnx", "other.onnx"]
    assert rows["Parameters"].share == "100"


def test_results_without_files_are_as_before(tmp_path):
    make_trainer(tmp_path, Evaluation(latency=False)).test(TinyModule(), DataLoader(Pairs()), verbose=False)
    assert "exported" not in json.loads((tmp_path / "test" / "results.json").read_text())
    assert "to the teacher" not in (tmp_path / "test" / "table.md").read_text().splitlines()[0]


def test_files_belong_to_the_direction_in_their_names(tmp_path):
    roles = [Role("generator_AtoB"), Role("generator_BtoA")]
    names = ["generator_AtoB.onnx", "generator_BtoA.onnx"]
    files = ExportedFiles([exported(tmp_path, nn.Conv2d(3, 3, 1), name) for name in names])
    files.open(roles)
    assert [[*files.of(role)] for role in roles] == [[name] for name in names]
    plain = ExportedFiles([exported(tmp_path, nn.Conv2d(3, 3, 1), "plain.onnx")])
    with pytest.raises(UserError, match=r"plain\.onnx doesn't tell which .*_AtoB, _BtoA"):
        plain.open(roles)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["missing.onnx"], r"There is no file .*missing\.onnx"),
        (["noise.onnx"], r"noise\.onnx can't be loaded by ONNX Runtime"),
        (["student.onnx", "sub/student.onnx"], r"two files called student\.onnx"),
    ],
)
def test_bad_files_are_refused_before_the_test(tmp_path, files, words):
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    (tmp_path / "sub").mkdir()
    for name in ("student.onnx", "sub/student.onnx"):
        exported(tmp_path, nn.Conv2d(3, 3, 1), name)
    trainer = make_trainer(tmp_path, Evaluation(exported=[str(tmp_path / name) for name in files]))
    with pytest.raises(UserError, match=words):
        trainer.test(TinyModule(), DataLoader(Pairs()), verbose=False)
    assert not (tmp_path / "test").exists()
