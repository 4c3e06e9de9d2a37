import pytest
import torch

from lightning_gancompress import devices


@pytest.mark.parametrize(
    ("flags", "native"),
    [({"avx512f", "avx512_bf16"}, True), ({"avx2", "amx_bf16"}, True), ({"avx512f", "amx_tile"}, False)],
)
def test_a_cpu_says_whether_it_computes_in_bfloat16(flags, native, monkeypatch):
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset(flags))
    assert devices.computes_bfloat16(torch.device("cpu")) is native


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_says_whether_it_computes_in_bfloat16(capability, native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.computes_bfloat16(torch.device("cuda", 0)) is native


def test_of_other_devices_nothing_is_known():
    assert not devices.computes_bfloat16(torch.device("mps"))
    assert devices.cpu_flags() is devices.cpu_flags()
