import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_module
import torch
from lightning.pytorch import LightningDataModule
from tiny_module import Pairs, TinyModule, make_trainer
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from lightning_gancompress import UserError
from lightning_gancompress.data.contract import GANDataModule
from lightning_gancompress.density import Encoder, density_coverage, precision_recall
from lightning_gancompress.evaluation.evaluation import Evaluation
from lightning_gancompress.evaluation.measure import Findings, Measure
from lightning_gancompress.evaluation.measures.set_distances import SetDistances
from lightning_gancompress.evaluation.metrics import Metric
from lightning_gancompress.metrics import distances, l1, psnr, ssim, to_uint8
from lightning_gancompress.metrics import fid as fid_module
from lightning_gancompress.tasks.role import Role


def loader(batch_size=2, **arguments):
    return DataLoader(Pairs(**arguments), batch_size=batch_size)


def translated(module, data):
    with torch.no_grad():
        return {name: net(data.source).tanh() for name, net in module.networks.items()}


@pytest.fixture
def tiny_inception(monkeypatch):
    """In place of Inception: 64 features of an image, quickly."""

    class Pool(nn.Module):
        Conv2d_1a_3x3 = nn.Identity()

        def forward(self, images):
            assert images.dtype == torch.uint8
            return (nn.functional.adaptive_avg_pool2d(images.float() / 255, 5).flatten(1)[:, :64],)

    monkeypatch.setattr(fid_module, "load_inception", lambda feature, weights: Pool())


def test_validation_logs_means_over_images_not_over_batches(tmp_path):
    module, data = TinyModule(), Pairs()
    (found,) = make_trainer(tmp_path, Evaluation()).validate(module, loader(), verbose=False)
    images = translated(module, data)
    expected = {
        "val/l1": l1(images["student"], data.target).mean(),
        "val/psnr": psnr(images["student"], data.target).mean(),
        "val/ssim": ssim(images["student"], data.target).mean(),
        "val/teacher_l1": l1(images["student"], images["teacher"]).mean(),
    }
    assert found == {key: pytest.approx(float(value), rel=1e-5) for key, value in expected.items()}


def test_teacher_training_is_measured_under_the_same_names(tmp_path):
    trainer = make_trainer(tmp_path, Evaluation())
    (found,) = trainer.validate(TinyModule(["generator"]), loader(), verbose=False)
    assert found.keys() == {"val/l1", "val/psnr", "val/ssim"}


def test_sanity_check_is_not_measured(tmp_path):
    trainer = make_trainer(tmp_path, Evaluation(), max_epochs=1, num_sanity_val_steps=2, limit_val_batches=1)
    module, seen = TinyModule(), []
    module.on_validation_epoch_end = lambda: seen.append(set(trainer.callback_metrics))
    trainer.fit(module, loader(), loader())
    assert seen == [set(), {"val/l1", "val/psnr", "val/ssim", "val/teacher_l1"}]


def test_test_writes_costs_errors_and_latency(tmp_path):
    module, data = TinyModule(), Pairs()
    module.networks["student"] = nn.Conv2d(3, 3, 1)
    trainer = make_trainer(tmp_path, Evaluation(latency_repetitions=3))
    trainer.test(module, loader(), verbose=False)

    results = json.loads((tmp_path / "test" / "results.json").read_text())
    teacher, student = results["networks"]["teacher"], results["networks"]["student"]
    assert (teacher["macs_exact"], student["macs_exact"]) == (3 * 3 * 9 * 16 * 16, 3 * 3 * 16 * 16)
    assert (teacher["params"], student["params"]) == (84, 12)
    file = io.BytesIO()
    torch.save(module.networks["student"].state_dict(), file)
    assert student["bytes"] == len(file.getvalue())
    images = translated(module, data)
    assert teacher["l1"] == pytest.approx(float(l1(images["teacher"], data.target).mean()), rel=1e-5)
    assert student["ssim"] == pytest.approx(float(ssim(images["student"], data.target).mean()), rel=1e-5)
    assert results["teacher_l1"] == pytest.approx(float(l1(images["student"], images["teacher"]).mean()))
    assert (results["images"], results["size"], results["phase"]) == (5, [16, 16], "finetune")
    assert student["latency_ms"]["median_ms"] > 0
    assert results["latency"]["torch"]["speedup"] > 0
    assert trainer.callback_metrics["test/student/l1"] == pytest.approx(student["l1"])

    header, rule, *rows = (tmp_path / "test" / "table.md").read_text().splitlines()
    assert [cell.strip() for cell in header.split("|")[2:-1]] == [
        *(
            "MACs (exact)",
            "MACs (literature)",
            "Parameters",
            "File",
            "Feature maps",
            "Latency",
            "L1",
            "PSNR",
            "SSIM",
        ),
    ]
    assert len(rule.split("|")) == len(header.split("|"))
    assert rows[0].startswith("| teacher | 2.074e-05 G |")
    assert rows[1].startswith("| student | 2.304e-06 G |")
    assert any("5 images; MACs at 16 x 16 pixels" in row for row in rows)


def test_fid_compares_every_generator_with_the_targets(tmp_path, tiny_inception):
    module, data = TinyModule(), Pairs()
    evaluation = Evaluation(fid_feature=64, latency=False)
    trainer = make_trainer(tmp_path, evaluation)
    trainer.test(module, loader(), verbose=False)
    network = fid_module.load_inception(64, None)
    features = {
        name: network(to_uint8(images))[0]
        for name, images in {"target": data.target, **translated(module, data)}.items()
    }
    whole = json.loads((tmp_path / "test" / "results.json").read_text())
    results = whole["networks"]
    for name in ("teacher", "student"):
        expected = distances(features[name], features["target"])
        assert {key: results[name][key] for key in expected} == pytest.approx(expected, rel=1e-5)
    to_teacher = {f"teacher_{k}": v for k, v in distances(features["student"], features["teacher"]).items()}
    assert {key: whole[key] for key in to_teacher} == pytest.approx(to_teacher, rel=1e-5)
    assert "| FID-64 | KID-64 x 1000 |" in (tmp_path / "test" / "table.md").read_text()


def test_densities_against_the_real_images_stand_in_the_table(tmp_path, tiny_inception):
    evaluation = Evaluation(fid_feature=64, latency=False)
    make_trainer(tmp_path, evaluation).test(TinyModule(), loader(n=8), verbose=False)
    results = json.loads((tmp_path / "test" / "results.json").read_text())["networks"]["student"]
    header, _, _, student, *_ = (tmp_path / "test" / "table.md").read_text().splitlines()
    cells = dict(zip(header.split(" | "), student.split(" | "), strict=True))
    for name in ("density", "coverage", "precision"):
        assert cells[name.capitalize()] == f"{results[name]:.4f}"


def test_without_real_images_the_student_is_held_against_the_teacher_alone(tmp_path, tiny_inception):
    evaluation = Evaluation(fid_feature=64, latency=False)
    make_trainer(tmp_path, evaluation).test(TinyModule(), loader(n=8, paired=False), verbose=False)
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    to_teacher = ("l1", "density", "coverage", "ise", "fid_64", "kid_64")
    assert {f"teacher_{name}" for name in to_teacher} <= results.keys()
    assert "fid_reals" not in results
    assert not {"fid_64", "l1"} & results["networks"]["student"].keys()


class Splits(GANDataModule):
    """Five images for the test and four others for the training, both numbered from 0."""

    def __init__(self):
        super().__init__()
        self.test = Pairs()
        self.train = Pairs(9)
        self.train.source, self.train.target = self.train.source[5:], self.train.target[5:]

    def datasets(self, split, augment=False):
        return {Role("generator"): self.test if split == "test" else self.train}

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=2)

    def plain_train_loader(self):
        return DataLoader(self.train, batch_size=3)


def test_training_images_count_among_the_real_ones_when_asked_for(tmp_path, tiny_inception):
    module, data = TinyModule(), Splits()
    real = {"test": data.test.target, "train+test": torch.cat([data.test.target, data.train.target])}
    network = fid_module.load_inception(64, None)
    fake = network(to_uint8(translated(module, data.test)["student"]))[0]
    for reals, images in real.items():
        evaluation = Evaluation(fid_feature=64, latency=False, fid_reals=reals)
        make_trainer(tmp_path, evaluation).test(module, datamodule=data, verbose=False)
        results = json.loads((tmp_path / "test" / "results.json").read_text())
        expected = distances(fake, network(to_uint8(images))[0])
        found = results["networks"]["student"]
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-5)
        assert results["images"] == 5  # errors are of the test's alone
        assert results["fid_reals"] == reals
        assert (
            f"{results['fid']['n_real']} real images of: {reals}."
            in (tmp_path / "test" / "table.md").read_text()
        )


def test_metric_networks_stay_out_of_checkpoints(tmp_path, tiny_inception):
    module, evaluation = TinyModule(), Evaluation(fid_feature=64, latency=False)
    trainer = make_trainer(tmp_path, evaluation)
    kept = []
    module.on_test_epoch_end = lambda: kept.append(trainer._checkpoint_connector.dump_checkpoint())
    trainer.test(module, loader(), verbose=False)
    assert kept[0]["state_dict"].keys() == module.state_dict().keys()
    assert not any(kept[0].get("callbacks", {}).values())
    (measure,) = (measure for measure in evaluation.measures if isinstance(measure, SetDistances))
    assert measure._inception is None


def test_an_image_counts_once_however_often_it_comes(tmp_path, tiny_inception):
    results = []
    for name, data in (("once", Pairs()), ("twice", ConcatDataset([Pairs(), Pairs()]))):
        trainer = make_trainer(tmp_path / name, Evaluation(fid_feature=64, latency=False))
        trainer.test(TinyModule(), DataLoader(data, batch_size=3), verbose=False)
        results.append(json.loads((tmp_path / name / "test" / "results.json").read_text()))
    assert results[0] == results[1]


def test_images_without_numbers_all_count(tmp_path):
    for numbered in (True, False):
        trainer = make_trainer(tmp_path / str(numbered), Evaluation(latency=False))
        trainer.test(TinyModule(), loader(numbered=numbered), verbose=False)
    texts = [(tmp_path / str(n) / "test" / "results.json").read_text() for n in (True, False)]
    assert texts[0] == texts[1]


def test_two_processes_measure_what_one_does(tmp_path):
    """Five images in two shares: the sampler pads one of them with an image that the other share has."""
    script = Path(tiny_module.__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, script, tmp_path / "two"], check=True, env=environment, timeout=120)
    make_trainer(tmp_path / "one", Evaluation(latency=False)).test(TinyModule(), loader(), verbose=False)
    one, two = (json.loads((tmp_path / n / "test" / "results.json").read_text()) for n in ("one", "two"))
    assert two["images"] == 5
    for name in ("teacher", "student"):
        assert two["networks"][name] == pytest.approx(one["networks"][name], rel=1e-5)
    assert (tmp_path / "two" / "test" / "grid.png").exists()


def test_unfinished_search_is_reported_without_latency(tmp_path):
    trainer = make_trainer(tmp_path, Evaluation())
    trainer.test(TinyModule(phase="search"), loader(), verbose=False)
    table = (tmp_path / "test" / "table.md").read_text()
    assert "Latency" not in table
    assert "The search isn't over" in table


def real_images_seen(monkeypatch):
    """Counts the batches of real images that Inception sees."""
    seen = []
    rows = SetDistances.real_rows

    def noted(self, *arguments):
        found = rows(self, *arguments)
        seen.extend(found)
        return found

    monkeypatch.setattr(SetDistances, "real_rows", noted)
    return seen


def test_real_images_are_seen_by_inception_once(tmp_path, tiny_inception, monkeypatch):
    seen = real_images_seen(monkeypatch)
    results = []
    for run, arguments in enumerate(({}, {}, {"fid_resize": "pytorch-fid"}, {"fid_reals": "test"})):
        arguments = {"fid_reals": "train+test", "cache_dir": str(tmp_path / "reals")} | arguments
        evaluation = Evaluation(fid_feature=64, latency=False, **arguments)
        make_trainer(tmp_path / str(run), evaluation).test(TinyModule(), datamodule=Splits(), verbose=False)
        results.append(json.loads((tmp_path / str(run) / "test" / "results.json").read_text()))
        # another resize or choice of reals is another set
        assert bool(seen) == (run != 1)
        seen.clear()
    assert results[0] == results[1]
    assert results[0]["fid"]["n_real"] == 9
    assert results[0]["fid"]["n_fake"] == 5
    assert [r["fid"]["resize"] for r in results[1:3]] == ["torch-fidelity", "pytorch-fid"]
    assert results[3]["fid"]["n_real"] == 5


class Outside(LightningDataModule):
    """A data module outside of the contract: nothing tells its images from others."""

    def test_dataloader(self):
        return DataLoader(Pairs(), batch_size=2)


def test_data_outside_of_the_contract_is_measured_and_not_kept(tmp_path, tiny_inception):
    evaluation = Evaluation(fid_feature=64, latency=False, cache_dir=str(tmp_path / "reals"))
    make_trainer(tmp_path, evaluation).test(TinyModule(), datamodule=Outside(), verbose=False)
    assert json.loads((tmp_path / "test" / "results.json").read_text())["fid"]["n_real"] == 5
    assert not (tmp_path / "reals").exists()
    evaluation = Evaluation(fid_feature=64, latency=False, fid_reals="train+test")
    with pytest.raises(UserError, match=r"Outside has no training images .* set fid_reals to test"):
        make_trainer(tmp_path, evaluation).test(TinyModule(), datamodule=Outside(), verbose=False)


def test_features_of_a_limited_test_are_not_kept_for_others(tmp_path, tiny_inception):
    found = []
    for run, limit in enumerate((1, 1.0, 1, 1.0)):
        evaluation = Evaluation(fid_feature=64, latency=False, cache_dir=str(tmp_path / "reals"))
        trainer = make_trainer(tmp_path / str(run), evaluation, limit_test_batches=limit)
        trainer.test(TinyModule(), datamodule=Splits(), verbose=False)
        found.append(json.loads((tmp_path / str(run) / "test" / "results.json").read_text()))
    assert [results["fid"]["n_real"] for results in found] == [2, 5, 2, 5]
    assert found[:2] == found[2:]
    assert len(list((tmp_path / "reals").iterdir())) == 1


class Flat(Encoder):
    def features(self, source, image):
        return image.mean((2, 3))


class Convolved(Encoder):
    """Has weights, of full precision."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def features(self, source, image):
        return self.layer(torch.cat([source, image])).mean((2, 3))[len(source) :]


def test_encoders_read_images_of_a_mixed_precision(tmp_path):
    module = TinyModule().bfloat16()
    module.test_step = lambda batch, *args: {
        role: {name: image.bfloat16() for name, image in images.items()}
        for role, images in TinyModule().test_step(batch, 0).items()
    }
    evaluation = Evaluation(latency=False, density_encoder=Convolved())
    make_trainer(tmp_path, evaluation).test(module, loader(n=9), verbose=False)
    assert "teacher_density" in json.loads((tmp_path / "test" / "results.json").read_text())


class Found(Measure):
    metrics = (Metric("stripes", "Stripes", "%", "lower", 1, 100),)

    def findings(self, trainer, pl_module, seen):
        return Findings({"student": {"stripes": 0.25}}, facts={"stripes": {"role": seen.role}})


def test_other_encoders_and_measures_add_to_the_results(tmp_path):
    callbacks = [Evaluation(latency=False, density_encoder=Flat()), Found()]
    (logged,) = make_trainer(tmp_path, *callbacks).test(TinyModule(), loader(n=9), verbose=False)
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    images = translated(TinyModule(), Pairs(9))
    points = {name: nn.functional.normalize(x.mean((2, 3)), dim=1) for name, x in images.items()}
    assert results["teacher_density"] == density_coverage(points["teacher"], points["student"])[0]
    assert results["teacher_recall"] == precision_recall(points["teacher"], points["student"])[1]
    assert results["density"] == {"encoder": "Flat", "k": 5}
    assert results["networks"]["student"]["stripes"] == logged["test/student/stripes"] == 0.25
    assert results["stripes"] == {"role": "generator"}
    header, _, teacher, student, *notes = (tmp_path / "test" / "table.md").read_text().splitlines()
    assert header.endswith("| Stripes |")
    assert teacher.endswith("|  |")
    assert student.endswith("| 25.0 % |")
    assert "stripes: role generator." in notes
    assert any("5 neighbours in features of Flat: density" in note for note in notes)


class Brightness(Measure):
    """Mean of each image, gathered as our own measures do it."""

    def rows(self, trainer, pl_module, images):
        return {name: image.flatten(1).mean(1) for name, image in images.generated.items()}

    def findings(self, trainer, pl_module, seen):
        assert all(len(values) == seen.count for values in seen.rows.values())
        return Findings({name: {"brightness": float(values.mean())} for name, values in seen.rows.items()})


def test_measures_of_users_get_each_image_once(tmp_path):
    callbacks = [Evaluation(latency=False), Brightness()]
    data = ConcatDataset([Pairs(), Pairs(3)])
    trainer = make_trainer(tmp_path, *callbacks)
    (logged,) = trainer.test(TinyModule(), DataLoader(data, batch_size=3), verbose=False)
    for name, images in translated(TinyModule(), Pairs()).items():
        assert logged[f"test/{name}/brightness"] == pytest.approx(float(images.mean()), abs=1e-6)
    assert "| brightness |" in (tmp_path / "test" / "table.md").read_text()


class Wrong(Measure):
    def findings(self, trainer, pl_module, seen):
        return {"stripes": 1.0}


def test_findings_of_another_type_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"Wrong\.findings returned dict: it must return .*Findings"):
        make_trainer(tmp_path, Evaluation(latency=False), Wrong()).test(TinyModule(), loader(), verbose=False)


def test_modules_without_generators_are_refused(tmp_path):
    module = TinyModule()
    del module.task
    with pytest.raises(UserError, match=r"TinyModule cannot be evaluated: a module needs task, phase"):
        make_trainer(tmp_path, Evaluation(latency=False)).test(module, loader(), verbose=False)


def test_every_runtime_is_timed_and_one_that_fails_costs_nothing(tmp_path, monkeypatch):
    def refuse(network):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", refuse)
    runtimes = ["torch", "compile", "onnx"]
    evaluation = Evaluation(latency_runtimes=runtimes, latency_repetitions=2)
    make_trainer(tmp_path, evaluation).test(TinyModule(), loader(), verbose=False)
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    assert results["latency"]["compile"] == {"failed": "no compiler here"}
    for runtime, key in (("torch", "latency_ms"), ("onnx", "latency_onnx_ms")):
        assert {"device", "version", "speedup"} <= results["latency"][runtime].keys()
        assert results["networks"]["student"][key]["repetitions"] == 2
    assert "No latency: no compiler here" in (tmp_path / "test" / "table.md").read_text()


def test_weights_without_a_feature_are_refused():
    with pytest.raises(UserError, match=r"fid_weights is inception\.pth, but fid_feature is not set"):
        Evaluation(fid_weights="inception.pth")


def test_a_single_image_stops_the_test_of_distances_before_it_starts(tmp_path, tiny_inception):
    module = TinyModule()
    module.test_step = lambda *args: pytest.fail("a batch was tested")
    trainer = make_trainer(tmp_path, Evaluation(fid_feature=64), limit_test_batches=1)
    with pytest.raises(UserError, match=r"FID and KID need at least 2 images, and the test has 1: test on"):
        trainer.test(module, loader(1), verbose=False)


def test_figures_that_need_more_images_are_announced_as_missing(tmp_path, tiny_inception):
    trainer = make_trainer(tmp_path, Evaluation(fid_feature=64), limit_test_batches=2)
    with pytest.warns(UserWarning, match=r"Density, .* need more than 5 images .*: the test has 4\."):
        trainer.test(TinyModule(), loader(2), verbose=False)
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    assert "fid_64" in results["networks"]["student"]
    assert "density" not in results["networks"]["student"]


def test_a_folder_that_can_not_be_written_stops_the_test_before_it_starts(tmp_path):
    (tmp_path / "test").write_text("a file")
    module = TinyModule()
    module.test_step = lambda *args: pytest.fail("a batch was tested")
    with pytest.raises(UserError, match=r"The folder .*test can't be written to .*trainer.default_root_dir"):
        make_trainer(tmp_path, Evaluation()).test(module, loader(), verbose=False)


def test_missing_weights_stop_the_test_before_it_starts(tmp_path):
    evaluation = Evaluation(fid_weights=str(tmp_path / "gone.pth"), fid_feature=768)
    module = TinyModule()
    module.test_step = lambda *args: pytest.fail("a batch was tested")
    with pytest.raises(UserError, match=r"gone\.pth"):
        make_trainer(tmp_path, evaluation).test(module, loader(), verbose=False)
