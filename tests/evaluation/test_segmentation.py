import json

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tiny_module import Pairs, TinyModule, make_trainer
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from lightning_gancompress import UserError
from lightning_gancompress.callbacks import Evaluation, SegmentationScore
from lightning_gancompress.cli import main
from lightning_gancompress.data.canvas import LABELS
from lightning_gancompress.evaluation.measures.label_files import LabelFiles
from lightning_gancompress.metrics.segmentation import Segmenter, decode, mean_iou, pixel_accuracy

COLOURS = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.fixture
def weights(tmp_path):
    """File of a segmentation network of one convolution."""
    torch.manual_seed(2)
    torch.save(nn.Conv2d(3, 3, 1).state_dict(), tmp_path / "seg.pth")
    return str(tmp_path / "seg.pth")


def score(weights, **arguments):
    return SegmentationScore(nn.Conv2d(3, 3, 1), weights, palette=COLOURS, **arguments)


def measure(folder, callback, data, **arguments):
    trainer = make_trainer(folder, Evaluation(latency=False), callback, **arguments)
    (logged,) = trainer.test(TinyModule(), DataLoader(data, batch_size=3), verbose=False)
    return json.loads((folder / "test" / "results.json").read_text()), logged


def expected(weights, shown, labels):
    network = nn.Conv2d(3, 3, 1)
    network.load_state_dict(torch.load(weights))
    segmenter = Segmenter(network, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return segmenter.confusions(shown, labels).sum(0)


def test_scores_of_every_generator_stand_beside_that_of_the_real_photos(tmp_path, weights):
    data, module = Pairs(), TinyModule()
    results, logged = measure(tmp_path, score(weights), data)
    labels = list(decode(data.source, COLOURS))
    for name, network in module.networks.items():
        matrix = expected(weights, network(data.source).tanh().detach(), labels)
        found = results["networks"][name]
        assert found["miou"] == pytest.approx(mean_iou(matrix))
        assert logged[f"test/{name}/miou"] == pytest.approx(found["miou"])
        assert found["pixel_accuracy"] == pytest.approx(pixel_accuracy(matrix))
    facts = results["miou"]
    assert facts["ceiling"] == pytest.approx(mean_iou(expected(weights, data.target, labels)))
    assert (facts["network"], facts["protocol"]) == ("Conv2d", "quick")
    assert (facts["classes"], facts["images"], len(facts["weights_sha256"])) == (3, 5, 12)
    table = (tmp_path / "test" / "table.md").read_text()
    assert "| mIoU | Pixel accuracy |" in table
    assert f"on the real photos it is {facts['ceiling']:.4f}" in table


def test_an_image_counts_once_however_often_it_comes(tmp_path, weights):
    once, _ = measure(tmp_path / "once", score(weights), Pairs())
    twice, _ = measure(tmp_path / "twice", score(weights), ConcatDataset([Pairs(), Pairs(3)]))
    assert once == twice
    unnumbered, _ = measure(tmp_path / "unnumbered", score(weights), Pairs(numbered=False))
    assert once == unnumbered


def test_two_processes_measure_what_one_does(tmp_path, weights):
    """Five images in two shares: the sampler pads one of them with an image that the other share has."""
    one, _ = measure(tmp_path / "one", score(weights), Pairs())
    two = {"devices": 2, "strategy": "ddp_fork"}
    make_trainer(tmp_path / "two", Evaluation(latency=False), score(weights), **two).test(
        TinyModule(), DataLoader(Pairs(), batch_size=3), verbose=False
    )
    results = json.loads((tmp_path / "two" / "test" / "results.json").read_text())
    assert results["miou"] == one["miou"]
    for name in ("teacher", "student"):
        assert results["networks"][name]["miou"] == one["networks"][name]["miou"]


def test_field_compares_with_label_files_of_full_size(tmp_path, weights):
    data, random = Pairs(2), np.random.default_rng(0)
    labels = random.choice([0, 1, 2, 255], (2, 48, 64)).astype(np.uint8)
    folder = tmp_path / "gtFine" / "town"
    folder.mkdir(parents=True)
    for name, label in zip(("a_1", "b_2"), labels, strict=True):
        Image.fromarray(label).save(folder / f"{name}_gtFine_trainIds.png")
    table = tmp_path / "table.txt"
    table.write_text("1 gtFine/b_2_gtFine_trainIds.png x.png\n0 gtFine/a_1_gtFine_trainIds.png y.png\n")
    callback = score(weights, protocol="field", labels=str(tmp_path / "gtFine"), label_table=str(table))
    results, _ = measure(tmp_path, callback, data)
    full = [torch.from_numpy(label).long() for label in labels]
    assert results["miou"]["ceiling"] == pytest.approx(mean_iou(expected(weights, data.target, full)))
    assert results["miou"]["protocol"] == "field"

    files = LabelFiles(tmp_path / "gtFine")
    assert files.find("val/b_2_leftImg8bit.png") == folder / "b_2_gtFine_trainIds.png"
    with pytest.raises(UserError, match=r"has none of 0_trainIds\.png.*label_table"):
        files.find("0.jpg")

    other = tmp_path / "gtFine" / "train" / "b_2_gtFine_trainIds.png"
    other.parent.mkdir()
    Image.fromarray(labels[0]).save(other)
    for also in (files, LabelFiles(tmp_path / "gtFine", str(table))):
        assert also.find("0.jpg" if also.table else "a_1.png") == folder / "a_1_gtFine_trainIds.png"
    with pytest.raises(UserError, match=r"image b_2\.png can be .*town.* or .*train.*: name the folder"):
        LabelFiles(tmp_path / "gtFine").find("b_2.png")
    with pytest.raises(UserError, match=r"image 1\.png can be"):
        LabelFiles(tmp_path / "gtFine", str(table)).find("1.png")
    assert LabelFiles(folder).find("b_2.png") == folder / "b_2_gtFine_trainIds.png"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weights": "seg.pth"}, "weights is seg.pth"),
        ({"protocol": "field"}, "labels is not set"),
        ({"palette": [[1, 2]]}, "palette is"),
        ({"input_size": [256]}, "input_size of SegmentationScore is"),
        ({"epochs": 0}, "epochs of SegmentationScore is 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        SegmentationScore(**arguments)


def test_data_without_label_maps_is_refused(tmp_path, weights):
    with pytest.raises(UserError, match="needs pairs of a colour-coded label map"):
        measure(tmp_path, score(weights), Pairs(paired=False))


def test_a_network_trained_on_the_pairs_judges_and_is_kept(tmp_path, unet, facades, capsys):
    palette = json.dumps([[*colour] for colour in LABELS.values()])
    options = [f"--trainer.default_root_dir={tmp_path}", *tiny.QUICK, "--trainer.callbacks=SegmentationScore"]
    options += [f"--trainer.callbacks.palette={palette}", "--trainer.callbacks.epochs=6"]
    results = []
    for _ in range(2):
        main(["test", f"--ckpt_path={unet}", *facades, *options])
        results.append(json.loads((tmp_path / "test" / "results.json").read_text()))
    assert capsys.readouterr().err.count("training a network") <= 1
    assert len(list((tmp_path / "cache").glob("segmentation_*.pth"))) == 1
    first, second = results
    assert first["miou"] == second["miou"]
    assert first["miou"]["ceiling"] > 2 / len(LABELS)  # better than one class everywhere
    assert first["miou"]["ceiling"] > first["networks"]["generator"]["miou"]
