"""The benchmark still knows what it times."""

import json

import benchmark

SMALL = ["--size=32", "--ngf=2", "--ndf=2", "--batch=2", "--budget=0.5", "--discriminator-budget=1.0"]
SMALL += ["--rounds=2", "--search-steps=8"]


def test_all_figures(tmp_path):
    file = tmp_path / "figures.json"
    fits = ["--fits", *benchmark.FITS, "--plain", "bf16+channels_last+fused"]
    benchmark.main([*SMALL, *fits, "--precision=auto", "--no-memory", "--json", str(file)])
    figures = json.loads(file.read_text())["figures"]
    names = ["plain, fp32", "plain, bf16+channels_last+fused", *(f"{kind}, auto" for kind in benchmark.FITS)]
    assert list(figures) == [*names, "loading"]
    for name in names:
        low, high = figures[name]["quartiles"]
        assert 0 < low <= high
        assert figures[name]["images_per_second"] > 0
    assert 0 < figures["teacher, auto"]["share_of_matmul_peak"] < 1
    assert figures["search, auto"]["share_of_macs_at_the_end"] < 0.9  # the agents follow the budget


def test_a_turn_trains(tmp_path):
    fit = benchmark.Fit("finetune", "32-true", benchmark.arguments(SMALL), tmp_path)
    before = {name: tensor.clone() for name, tensor in fit.module.student.state_dict().items()}
    assert fit.module.phase.name == "finetune"
    fit.turn()
    assert any(not before[name].equal(tensor) for name, tensor in fit.module.student.state_dict().items())
    fit.close()


def test_memory(tmp_path, capsys):
    benchmark.main([*SMALL, "--memory-of=teacher"])
    start, steps = map(float, capsys.readouterr().out.splitlines()[-1].split())
    assert min(start, steps) > 100  # torch alone has more
