import time

import pytest
import torch
from torch import nn

from lightning_gancompress.export import (
    compare_latency,
    export_onnx,
    measure_latency,
    onnx_latency,
    torch_latency,
    torch_threads,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told to, in seconds."""

    class Clock:
        now = 0.0

        def sleep(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def test_percentiles_are_in_milliseconds_and_without_the_warmup(clock):
    durations = iter([100.0, 100.0, *(second / 1000 for second in range(1, 12))])
    latency = measure_latency(lambda: clock.sleep(next(durations)), warmup=2, repetitions=11)
    assert (latency.p10_ms, latency.median_ms, latency.p90_ms) == pytest.approx((2.0, 6.0, 10.0))
    assert latency.repetitions == 11


def test_comparison_is_free_of_drift(clock):
    slowness = 1.0
    order = []

    def run(name, seconds):
        def call():
            nonlocal slowness
            slowness *= 1.05  # each call is slower than the one before, whichever it is
            order.append(name)
            clock.sleep(seconds * slowness)

        return call

    result = compare_latency(run("a", 0.3), run("b", 0.1), warmup=0, repetitions=10)
    assert result.ratio == pytest.approx(3.0, rel=0.01)
    assert "".join(order) == "abba" * 5
    assert result.ratio_p10 <= result.ratio <= result.ratio_p90
    # what the same calls one after the other would have shown
    a, b = (measure_latency(run(*x), warmup=0, repetitions=10) for x in (("a", 0.3), ("b", 0.1)))
    assert a.median_ms / b.median_ms < 2


def test_comparison_by_another_clock():
    moments = iter([0.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0, 8.0])  # pairs a b, b a
    result = compare_latency(lambda: 0, lambda: 0, warmup=0, repetitions=2, clock=lambda: next(moments))
    assert (result.a.median_ms, result.b.median_ms, result.ratio) == pytest.approx((3000, 1000, 3))


def test_networks_are_timed_in_eval_mode_and_left_alone(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Dropout())
    sample = torch.rand(1, 3, 16, 16)
    before = network[1].running_mean.clone()
    threads = torch.get_num_threads()
    assert torch_latency(network, sample, repetitions=3).median_ms > 0
    assert torch.equal(network[1].running_mean, before)
    assert network.training
    assert torch.get_num_threads() == threads
    pytest.importorskip("onnxruntime")
    export_onnx(network, tmp_path / "n.onnx", sample)
    assert onnx_latency(tmp_path / "n.onnx", sample, repetitions=3).median_ms > 0


def test_threads_come_back_after_an_error():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(ZeroDivisionError), torch_threads(before + 1):
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before
