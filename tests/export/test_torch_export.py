import pytest
import torch
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.export import export_torch
from lightning_gancompress.networks import ResnetGenerator, UnetGenerator


@pytest.mark.parametrize(
    "network", [ResnetGenerator(ngf=4, n_blocks=1), UnetGenerator(ngf=4, n_downs=6)], ids=["resnet", "unet"]
)
def test_program_equals_the_network_in_any_batch_size(network, tmp_path):
    network.train()
    facts = export_torch(network, tmp_path / "generator.pt2", torch.zeros(1, 3, 64, 64))
    assert network.training
    image = torch.rand(5, 3, 64, 64) * 2 - 1
    program = torch.export.load(tmp_path / "generator.pt2").module()
    torch.testing.assert_close(program(image), network.eval()(image), atol=1e-5, rtol=0)
    assert facts["format"] == "torch"
    assert [path.name for path in tmp_path.iterdir()] == ["generator.pt2"]


def test_not_a_number_is_never_written(tmp_path):
    network = ResnetGenerator(ngf=4, n_blocks=1)
    next(network.parameters()).data.fill_(float("nan"))
    with pytest.raises(UserError, match="weights are finite"):
        export_torch(network, tmp_path / "generator.pt2", torch.zeros(1, 3, 16, 16))
    assert not list(tmp_path.iterdir())


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, image):
        return self.conv(image), image


def test_a_network_of_several_outputs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Branches returns a tuple.*wrap it"):
        export_torch(Branches(), tmp_path / "own", torch.zeros(1, 3, 8, 8))
    assert not list(tmp_path.iterdir())


def test_a_foreign_networks_own_complaint_is_passed_on(tmp_path):
    with pytest.raises(
        UserError, match=r"Conv2d fails on an image batch of 1x3x2x2 \(.*Kernel size.*another size"
    ):
        export_torch(nn.Conv2d(3, 3, 5), tmp_path / "own", torch.zeros(1, 3, 2, 2))
