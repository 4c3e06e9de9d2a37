"""Advice on speed."""

import time

import pytest
import torch
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.networks import ResnetGenerator
from lightning_gancompress.pruning import count_macs, find_groups
from lightning_gancompress.speed import measuring, read_advice, write_advice
from lightning_gancompress.speed.advice import LayerTime, SpeedAdvice, WidthTime


def advice(**measured):
    widths = {1: WidthTime(20.0, 3.0, 10.0), 16: WidthTime(10.0, 5.0, 9.5)}
    facts = {"widths": widths, "threads": {1: 20.0, 2: 12.0}, "batches": {1: 20.0, 8: 19.9}, "layers": []}
    return SpeedAdvice("a device", (64, 32), 0.1, **(facts | measured)).sentences()


def test_advice_in_sentences():
    said = "\n".join(advice(layers=[LayerTime("model.0", 0.5, 0.25)]))
    for words in (
        "images of 64 x 32 pixels",
        "0.1 of the MACs: 1: 20 ms, 16: 10 ms",
        "channel_multiple 16 is 2.00 times as fast as 1.",
        "9.5 times fewer MACs it is 5 times as fast as the whole network: narrow layers under-use",
        "2 are fastest",
        "batches gain nothing",
        "model.0 50% (of the MACs 25%)",
    ):
        assert words in said


def test_nothing_is_advised_within_the_noise():
    said = "\n".join(advice(widths={1: WidthTime(20.0, 9.0, 10.0), 16: WidthTime(19.5, 9.0, 9.5)}))
    assert "No channel_multiple is faster than 1" in said
    assert "narrow" not in said


def test_widths_are_multiples_within_the_budget():
    whole, sample = ResnetGenerator(ngf=32, n_blocks=1).eval(), torch.zeros(1, 3, 16, 16)
    cut = measuring._cut(whole, find_groups(whole, [sample]), sample, 0.3)
    assert [*cut] == [1, 4, 8, 16]
    for multiple, network in cut.items():
        widths = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)][:-1]
        assert all(width % multiple == 0 for width in widths)
        assert count_macs(network, [sample]) <= 0.3 * count_macs(whole, [sample])


def test_multiples_that_are_too_wide_are_left_out():
    whole, sample = ResnetGenerator(ngf=16, n_blocks=1).eval(), torch.zeros(1, 3, 16, 16)
    assert [*measuring._cut(whole, find_groups(whole, [sample]), sample, 0.1)] == [1, 4]


def test_a_slow_layer_is_found():
    class Slow(nn.Identity):
        def forward(self, image):
            time.sleep(0.02)
            return image

    first, *_ = measuring._layers(nn.Sequential(nn.Conv2d(3, 3, 1), Slow()), torch.zeros(1, 3, 8, 8))
    assert (first.name, first.macs) == ("1", 0)
    assert first.time > 0.5


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "speed.json"
    assert read_advice(path) == []
    write_advice(path, ["one", "two"])
    assert read_advice(path) == ["one", "two"]
    path.write_text('{"advice": [1]}')
    with pytest.raises(UserError, match=r"speed\.json holds no advice on speed .*: remove it"):
        read_advice(path)
