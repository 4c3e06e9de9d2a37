"""Whole runs of CycleGAN through the command line: directions, partners, missing networks, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress import load_generator
from lightning_gancompress.checkpoints import load_network, load_networks
from lightning_gancompress.cli import main
from lightning_gancompress.data import SyntheticUnpairedFacades
from lightning_gancompress.metrics import fid, to_uint8

SOURCE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
SHORT = ["--trainer.callbacks.search_epochs=1", "--trainer.max_epochs=2"]  # an epoch of each phase
DIRECTIONS = {"AtoB": ["AtoB"], "BtoA": ["BtoA"], "both": ["AtoB", "BtoA"]}
BUDGETS = {"generator": 0.3, "discriminator": 0.5}


def compression(folder: Path, teacher: Path | str, direction: str, *options: str) -> list[str]:
    args = tiny.compression(folder, Path(teacher), "CollaborativePruning", *SHORT)
    return [*args, *tiny.cyclegan(direction), *options]


def counted_macs(network: nn.Module) -> int:
    """Multiply-adds by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops() // 2


def tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """Those of one network of a checkpoint."""
    state = tiny.read(path)["state_dict"]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(f"{prefix}.")}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, cyclegan: Path, domains: list[str]) -> Path:
    """A compression of both directions."""
    folder = tmp_path_factory.mktemp("both")
    main([*compression(folder, cyclegan, "both"), *domains])
    return tiny.last(folder)


# -- directions and partners ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "partner"),
    [
        ("AtoB", "trained"),
        ("AtoB", "frozen"),
        ("AtoB", "left_out"),
        ("BtoA", "trained"),
        ("BtoA", "frozen"),
        ("BtoA", "left_out"),
    ],
)
def test_one_direction(
    direction: str, partner: str, tmp_path: Path, cyclegan: Path, domains: list[str]
) -> None:
    options = [f"--model.partner={partner}", "--model.distill_weight=1"]
    main([*compression(tmp_path, cyclegan, direction, *options), *domains])
    path, other = tiny.last(tmp_path), {"AtoB": "BtoA", "BtoA": "AtoB"}[direction]
    header = tiny.read(path)["gancompress"]
    students = {prefix for prefix in header["networks"] if prefix.startswith("student.")}
    expected = {"trained": {"generator", "discriminator"}, "frozen": {"generator"}, "left_out": set()}[
        partner
    ]
    assert students == {
        *(f"student.{kind}_{direction}" for kind in BUDGETS),
        *(f"student.{kind}_{other}" for kind in expected),
    }
    for kind, budget in BUDGETS.items():
        role = f"{kind}_{direction}"
        whole, small = (load_network(p, role)[0] for p in (cyclegan, path))
        assert 0.97 * budget < counted_macs(small) / counted_macs(whole) <= budget
    for prefix in header["networks"]:
        part, _, role = prefix.partition(".")
        before, after = tensors(cyclegan, f"networks.{role}"), tensors(path, prefix)
        still = part == "teacher" or (partner == "frozen" and role.endswith(other))
        assert equal(before, after) == still, prefix
    assert (tmp_path / f"generator_{direction}.pth").is_file()
    assert not (tmp_path / f"generator_{other}.pth").exists()


def test_both_directions_within_one_budget(both: Path, cyclegan: Path) -> None:
    for kind, budget in BUDGETS.items():
        whole, small = (
            sum(counted_macs(load_network(path, f"{kind}_{d}")[0]) for d in DIRECTIONS["both"])
            for path in (cyclegan, both)
        )
        assert 0.97 * budget < small / whole <= budget
    for role in tiny.read(both)["gancompress"]["sides"]:
        assert role in BUDGETS
    for direction in DIRECTIONS["both"]:
        role = f"generator_{direction}"
        small = load_generator(both.parent.parent / f"{role}.pth")
        torch.testing.assert_close(small(SOURCE), load_generator(both, network=role)(SOURCE))
        teacher = load_generator(both, network=f"teacher.{role}")
        assert torch.equal(teacher(SOURCE), load_generator(cyclegan, network=role)(SOURCE))
        assert equal(tensors(both, f"teacher.{role}"), tensors(cyclegan, f"networks.{role}"))


def test_each_direction_has_neighbourhoods_of_its_own(
    tmp_path: Path, cyclegan: Path, domains: list[str]
) -> None:
    main([*compression(tmp_path / "run", cyclegan, "both"), *domains, "--trainer.callbacks+=tiny.Tables"])
    found = json.loads((tmp_path / "run" / "tables.json").read_text())
    assert found["tables"].keys() == {"generator_AtoB", "generator_BtoA"}
    assert found["tables"]["generator_AtoB"] != found["tables"]["generator_BtoA"]
    for role, table in found["tables"].items():
        assert [row[0] for row in table] == list(range(32))
        rows = [set(row) for row in table]
        batches = found["batches"][f"index_{role[10]}"]
        assert len(batches) == 4
        for batch in batches:
            for first in (0, 4):
                members = set(batch[first : first + 4])
                assert len(members) == 4
                assert any(members <= row for row in rows)
        other = found["tables"]["generator_BtoA" if role.endswith("AtoB") else "generator_AtoB"]
        assert not all(
            any(set(batch[first : first + 4]) <= set(row) for row in other)
            for batch in batches
            for first in (0, 4)
        )


def test_left_out_needs_another_tie_to_the_source(
    tmp_path: Path, cyclegan: Path, domains: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = compression(tmp_path, cyclegan, "AtoB", "--model.partner=left_out")
    code, words = tiny.fail_code(capsys, [*args, *domains])
    assert code == 2
    assert "model.distill_weight: 0 leaves nothing that ties a translation to its source" in words


# -- afterwards ----------------------------------------------------------------------------------------------


def test_test_of_both(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["test", f"--ckpt_path={both}", f"--trainer.default_root_dir={tmp_path}"])
    printed = capsys.readouterr().out
    assert printed.count("test/AtoB/teacher_l1") == 1
    assert "DataLoader 1" not in printed  # which would repeat every figure
    for direction in DIRECTIONS["both"]:
        results = json.loads((tmp_path / "test" / f"results_{direction}.json").read_text())
        assert results["images"] == 4
        assert results["networks"].keys() == {"teacher", "student"}
        assert results["networks"]["student"]["macs_exact"] == counted_macs(
            load_generator(both, network=f"generator_{direction}")
        )
        assert results["teacher_l1"] > 0
        assert "l1" not in results["networks"]["student"]  # there are no pairs
        assert (tmp_path / "test" / f"table_{direction}.md").read_text().startswith("|")
        with Image.open(tmp_path / "test" / f"grid_{direction}.png") as grid:
            assert grid.width >= 3 * 32
    assert not (tmp_path / "test" / "results.json").exists()


def test_distances_to_the_real_images_of_the_other_domain(
    both: Path, tmp_path: Path, domains: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = nn.AdaptiveAvgPool2d(5)

    def inception(images: Tensor) -> tuple[Tensor]:
        return (pool(images.float() / 255).flatten(1)[:, :64],)

    module = nn.Module()
    module.forward = inception  # type: ignore[method-assign]
    monkeypatch.setattr(fid, "load_inception", lambda feature, weights: module)
    options = ["--trainer.callbacks=Evaluation", "--trainer.callbacks.latency=false"]
    options += ["--trainer.callbacks.fid_feature=64", "--trainer.callbacks.fid_reals=train+test"]
    main(["test", f"--ckpt_path={both}", f"--trainer.default_root_dir={tmp_path}", *options])
    data = SyntheticUnpairedFacades(
        domains[1].partition("=")[2], n_train=32, n_val=4, n_test=4, size=32, num_workers=0
    )
    train = list(data.plain_train_loader())
    test = {name: next(iter(loader)) for name, loader in zip("AB", data.test_dataloader(), strict=True)}
    for source, target in ("AB", "BA"):
        real = torch.cat([test[target][target], *(batch[target] for batch in train if target in batch)])
        assert len(real) == 36
        name = f"{source}to{target}"
        results = json.loads((tmp_path / "test" / f"results_{name}.json").read_text())
        for part, network in (("teacher", f"teacher.generator_{name}"), ("student", f"generator_{name}")):
            with torch.no_grad():
                fake = load_generator(both, network=network)(test[source][source])
            expected = fid.distances(inception(to_uint8(fake))[0], inception(to_uint8(real))[0])
            found = {key: results["networks"][part][key] for key in expected}
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_validation_is_logged_per_direction(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["validate", f"--ckpt_path={both}", f"--trainer.default_root_dir={tmp_path}"])
    table = capsys.readouterr().out
    for direction in DIRECTIONS["both"]:
        assert f"val/{direction}/teacher_l1" in table
        assert (tmp_path / "validate" / f"grid_{direction}.png").is_file()


def test_test_of_a_teacher(cyclegan: Path, tmp_path: Path) -> None:
    options = ["--trainer.callbacks=Evaluation", "--trainer.callbacks.latency=false"]
    main(["test", f"--ckpt_path={cyclegan}", f"--trainer.default_root_dir={tmp_path}", *options])
    for direction in DIRECTIONS["both"]:
        results = json.loads((tmp_path / "test" / f"results_{direction}.json").read_text())
        assert results["networks"].keys() == {"generator"}
        assert results["images"] == 4


def test_predict_needs_one_direction(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    Image.fromarray(pixels).save(sources / "one.png")
    line = ["predict", f"--ckpt_path={both}", f"--data.predict_folder={sources}"]
    line += [f"--trainer.default_root_dir={tmp_path}"]
    code, words = tiny.fail_code(capsys, line)
    assert code == 2
    assert words.splitlines()[-1].startswith("error: model.task.direction: both leaves open which")
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1
    for direction in DIRECTIONS["both"]:
        main([*line, f"--model.task.direction={direction}"])
        with Image.open(tmp_path / "predictions" / "one.png") as picture:
            found = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1
        expected = load_generator(both, network=f"generator_{direction}")(image)[0]
        assert float((found - expected).abs().max()) < 1.01 / 127.5


def test_export_and_profile(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["export", f"--ckpt_path={both}", "--format=torch", f"--output={tmp_path / 'net.pt2'}"]
    assert "--network" in tiny.fail_code(capsys, line)[1]
    main([*line, "--network=generator_BtoA"])
    program, network = (
        torch.export.load(tmp_path / "net.pt2").module(),
        load_generator(both, network="generator_BtoA"),
    )
    torch.testing.assert_close(program(SOURCE[:1]), network(SOURCE[:1]), atol=1e-5, rtol=0)
    main(["profile", f"--ckpt_path={both}", f"--json={tmp_path / 'costs.json'}"])
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert len(costs) == 4
    assert counted_macs(network) in [cost["macs_exact"] for cost in costs.values()]


# -- what the teacher lacks ----------------------------------------------------------------------------------


def upstream(folder: Path, checkpoint: Path, *names: str) -> Path:
    """Some of a teacher's networks as files of pytorch-CycleGAN-and-pix2pix; the first one's path."""
    roles = {
        "G_A": "generator_AtoB",
        "G_B": "generator_BtoA",
        "D_A": "discriminator_AtoB",
        "D_B": "discriminator_BtoA",
    }
    networks = load_networks(checkpoint)
    folder.mkdir()
    paths = [folder / f"latest_net_{name}.pth" for name in names]
    for name, path in zip(names, paths, strict=True):
        torch.save(networks[f"networks.{roles[name]}"][0].state_dict(), path)
    return paths[0]


def test_upstreams_four_files(tmp_path: Path, cyclegan: Path, domains: list[str]) -> None:
    path = upstream(tmp_path / "upstream", cyclegan, "G_B", "G_A", "D_A", "D_B")
    main([*compression(tmp_path / "run", path, "BtoA"), *domains])
    for role in ("generator_AtoB", "generator_BtoA", "discriminator_AtoB", "discriminator_BtoA"):
        teacher = load_network(tiny.last(tmp_path / "run"), f"teacher.{role}")[0]
        original = load_network(cyclegan, role)[0]
        assert torch.equal(teacher.eval()(SOURCE), original.eval()(SOURCE))


@pytest.mark.parametrize("missing", ["train", "leave_out"])
def test_a_lone_generator(
    missing: str, tmp_path: Path, cyclegan: Path, domains: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = upstream(tmp_path / "upstream", cyclegan, "G_A")
    options = [f"--model.missing={missing}", "--model.distill_weight=1"]
    args = [*compression(tmp_path / "run", path, "AtoB", *options), *domains]
    with caplog.at_level("INFO"):
        main(args)
    others = ["generator_BtoA", "discriminator_AtoB", "discriminator_BtoA"]
    outcome = (
        "trained afresh in the fine-tuning" if missing == "train" else "left out, with the losses that need"
    )
    for role in others:
        assert f"{role}: no weights were found; {outcome}" in caplog.text
    networks = tiny.read(tiny.last(tmp_path / "run"))["gancompress"]["networks"]
    assert networks.keys() == {
        "teacher.generator_AtoB",
        "student.generator_AtoB",
        *(f"student.{role}" for role in others if missing == "train"),
    }
    whole, small = load_generator(path), load_generator(tmp_path / "run" / "generator_AtoB.pth")
    assert 0.97 * 0.3 < counted_macs(small) / counted_macs(whole) <= 0.3


@pytest.mark.parametrize("missing", ["train", "leave_out"])
def test_a_lone_pix2pix_generator(
    missing: str, tmp_path: Path, unet: Path, facades: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "latest_net_G.pth"
    torch.save(load_networks(unet)["networks.generator"][0].state_dict(), path)
    args = tiny.compression(
        tmp_path / "run", path, "CollaborativePruning", *SHORT, f"--model.missing={missing}"
    )
    with caplog.at_level("INFO"):
        main([*args, *facades])
    outcome = "trained afresh" if missing == "train" else "left out"
    assert f"discriminator: no weights were found; {outcome}" in caplog.text
    assert "The teacher has no discriminator: the search goes without adversarial objective." in caplog.text
    networks = tiny.read(tiny.last(tmp_path / "run"))["gancompress"]["networks"]
    assert ("student.discriminator" in networks) == (missing == "train")
    small = load_generator(tmp_path / "run" / "generator.pth")
    assert 0.97 * 0.3 < counted_macs(small) / counted_macs(load_generator(path)) <= 0.3


# -- what can't go together ----------------------------------------------------------------------------------


def test_a_checkpoint_of_another_direction(
    tmp_path: Path, cyclegan: Path, domains: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*compression(tmp_path, cyclegan, "AtoB", "--trainer.max_epochs=1"), *domains]
    main(args)  # the file holds both generators
    path = tiny.last(tmp_path)
    test = ["test", f"--trainer.default_root_dir={tmp_path}"]
    for line, direction in ((args, "BtoA"), (args, "both"), (test, "BtoA")):
        words = f"ckpt_path: {path} is of a compression of generator_AtoB, but the task wants"
        options = [f"--ckpt_path={path}", f"--model.task.direction={direction}"]
        code, found = tiny.fail_code(capsys, [*line, *options])
        assert code == 2
        assert words in found
    code, found = tiny.fail_code(capsys, [*args, f"--ckpt_path={path}", "--model.partner=frozen"])
    assert code == 2
    assert "model.partner: frozen comes too late" in found


def test_a_file_of_another_direction(
    tmp_path: Path, cyclegan: Path, domains: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = upstream(tmp_path / "upstream", cyclegan, "G_A")
    code, words = tiny.fail_code(capsys, [*compression(tmp_path / "run", path, "BtoA"), *domains])
    assert code == 2
    assert "is a network of AtoB by its name" in words
    assert not tiny.last(tmp_path / "run").exists()


def test_a_frozen_partner_without_weights_stops_the_run_before_the_search(
    tmp_path: Path, cyclegan: Path, domains: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = upstream(tmp_path / "upstream", cyclegan, "G_A", "D_A")
    args = [*compression(tmp_path / "run", path, "AtoB", "--model.partner=frozen"), *domains]
    code, words = tiny.fail_code(capsys, args)
    assert code == 2
    assert "model.partner: frozen needs the weights of the generator_BtoA" in words
    assert not (tmp_path / "neighbours").exists()


def test_an_identity_loss_that_can_not_be_stops_the_run_before_the_search(
    tmp_path: Path, cyclegan: Path, domains: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # pictures that the training of the fixture has drawn
    grey = ["--model.generator.out_channels=1", "--model.discriminator.in_channels=1"]
    pictures = ["--data=UnpairedDataModule", domains[1], "--data.load_size=32", "--data.crop_size=32"]
    pictures += ["--data.num_workers=0", "--data.batch_size=8", "--data.out_channels=1"]
    args = tiny.cyclegan_teacher(tmp_path / "teacher", *grey, *pictures, "--trainer.max_epochs=1")
    main([*args, "--model.task.lambda_identity=0"])
    teacher = load_generator(tiny.last(tmp_path / "teacher"), network="generator_BtoA")
    assert teacher(SOURCE[:, :1]).shape == SOURCE.shape
    args = [*compression(tmp_path / "run", tiny.last(tmp_path / "teacher"), "both"), *pictures]
    code, words = tiny.fail_code(capsys, args)
    assert code == 2
    assert "model.task.lambda_identity: 0.5 asks for" in words
    assert not (tmp_path / "neighbours").exists()
    main([*args, "--model.task.lambda_identity=0"])
    small = load_generator(tmp_path / "run" / "generator_AtoB.pth")
    assert small(SOURCE).shape == (2, 1, 32, 32)


def test_a_teacher_of_another_task(
    tmp_path: Path,
    cyclegan: Path,
    unet: Path,
    domains: list[str],
    facades: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for args in (
        [*compression(tmp_path, unet, "AtoB"), *domains],
        [*tiny.compression(tmp_path, cyclegan), *facades],
    ):
        code, words = tiny.fail_code(capsys, args)
        assert code == 2
        assert "error: model.teacher: " in words
        assert "set model.task to the task that it was made with" in words


def test_data_of_another_task(
    tmp_path: Path,
    cyclegan: Path,
    unet: Path,
    domains: list[str],
    facades: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for args in (
        [*compression(tmp_path, cyclegan, "AtoB"), *facades],
        [*tiny.compression(tmp_path, unet), *domains],
        [*tiny.teacher(tmp_path), *domains],
        [*tiny.cyclegan_teacher(tmp_path), *facades],
    ):
        code, words = tiny.fail_code(capsys, args)
        assert code == 2
        assert "error: data: " in words


def test_training_without_targets(
    tmp_path: Path, domains: list[str], cyclegan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [f"{domains[1]}/trainA", "--data.load_size=32", "--data.crop_size=32", "--data.num_workers=0"]
    code, words = tiny.fail_code(capsys, [*tiny.teacher(tmp_path), "--data=FolderDataModule", *sources])
    assert code == 2
    assert "error: data: Pix2Pix trains on pairs" in words
