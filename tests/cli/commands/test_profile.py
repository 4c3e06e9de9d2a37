"""Profiles of checkpoints and of configurations."""

import html
import json

import tiny
import torch

from lightning_gancompress.checkpoints import load_networks
from lightning_gancompress.cli import main
from lightning_gancompress.cli.commands.profile import profile, teachers_of
from lightning_gancompress.modules import TeacherModule
from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator
from lightning_gancompress.pruning import count_macs, count_params
from lightning_gancompress.speed import measuring, read_advice
from lightning_gancompress.tasks import CycleGAN

SOURCE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_profile_of_a_checkpoint(unet, tmp_path, capsys):
    main(["profile", "--ckpt_path", str(unet), "--json", str(tmp_path / "macs.json")])
    network, _ = load_networks(unet)["networks.generator"]
    image = [torch.zeros(1, 3, 32, 32)]
    expected = {
        "macs_exact": count_macs(network, image),
        "macs_literature": count_macs(network, image, "literature"),
        "params": count_params(network),
    }
    assert json.loads((tmp_path / "macs.json").read_text()) == {"teacher": expected}
    assert f"{expected['macs_literature']:,}" in capsys.readouterr().out


def test_profile_of_a_config(unet, tmp_path, facades):
    options = tiny.compression(tmp_path, unet)[1:]
    main(["profile", *options, *facades, "--json", str(tmp_path / "a.json")])
    main(["profile", "--ckpt_path", str(unet), "--json", str(tmp_path / "b.json")])
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_profile_of_a_compression(unet, tmp_path, facades):
    main([*tiny.compression(tmp_path, unet, "UniformWidth"), *facades, "--trainer.max_epochs=1"])
    main(["profile", "--ckpt_path", str(tiny.last(tmp_path)), "--json", str(tmp_path / "both.json")])
    main(["profile", "--ckpt_path", str(tmp_path / "generator.pth"), "--json", str(tmp_path / "small.json")])
    both, small = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("both", "small"))
    assert both["student"]["macs_exact"] <= 0.3 * both["teacher"]["macs_exact"]
    assert small == {"student": both["student"]}


def test_profile_names_an_impossible_size(unet, capsys):
    capsys.readouterr()
    code, text = tiny.fail_code(capsys, ["profile", "--ckpt_path", str(unet), "--size=33"])
    assert code == 2
    assert "33" in text.splitlines()[-1]


def macs(path):
    return {name: total["macs_exact"] for name, total in json.loads(path.read_text()).items()}


def test_a_profile_shows_every_generator(file, networks):
    profile(ckpt_path=str(file), json=str(file.with_suffix(".json")))
    expected = {
        prefix.replace(".generator", ""): count_macs(net, [SOURCE]) for prefix, net in networks.items()
    }
    assert macs(file.with_suffix(".json")) == expected
    assert expected["student_AtoB"] != expected["student_BtoA"]


def test_a_profile_of_one_network_tells_its_direction(tmp_path, networks):
    file = tmp_path / "latest_net_G_B.pth"
    torch.save(networks["teacher.generator_BtoA"].state_dict(), file)
    profile(ckpt_path=str(file), size=16, json=str(tmp_path / "macs.json"))
    assert macs(tmp_path / "macs.json") == {
        "teacher_BtoA": count_macs(networks["teacher.generator_BtoA"], [SOURCE])
    }


def test_a_module_shows_its_teachers():
    module = TeacherModule(ResnetGenerator(ngf=2, n_blocks=1), PatchDiscriminator(3, 2, 1), CycleGAN())
    assert {str(name): network for name, network in teachers_of(module).items()} == {
        f"teacher_{direction}": module.networks[f"generator_{direction}"] for direction in ("AtoB", "BtoA")
    }


def test_a_profile_reads_checkpoints_of_other_projects(tmp_path):
    network = ResnetGenerator(ngf=2, n_blocks=1)
    state = {f"generator.{key}": tensor for key, tensor in network.state_dict().items()}
    path = tmp_path / "epoch=3.ckpt"
    torch.save({"epoch": 3, "pytorch-lightning_version": "2.6", "state_dict": state}, path)
    profile(ckpt_path=str(path), size=16, json=str(tmp_path / "macs.json"))
    assert macs(tmp_path / "macs.json") == {"teacher": count_macs(network, [SOURCE])}


def test_advice_is_printed_and_kept_for_the_report(unet, tmp_path, facades, capsys, monkeypatch):
    monkeypatch.setattr(measuring, "MULTIPLES", (1, 4))
    main([*tiny.compression(tmp_path, unet, "UniformWidth"), *facades, "--trainer.max_epochs=1"])
    capsys.readouterr()
    main(["profile", f"--ckpt_path={tiny.last(tmp_path)}", "--advice=true"])
    said = capsys.readouterr().out
    assert "An image by channel_multiple, random weights" in said
    main(["report", f"--folder={tmp_path}"])
    page = html.unescape((tmp_path / "report.html").read_text())
    for sentence in read_advice(tmp_path / "speed.json"):
        assert sentence in said
        assert sentence in page
