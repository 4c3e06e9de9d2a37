import pytest
import torch
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import alexnet

from lightning_gancompress import UserError
from lightning_gancompress.metrics import Lpips


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save({k: v for k, v in alexnet(weights=None).state_dict().items() if "features" in k}, path)
    return path


def test_equals_torchmetrics_with_the_same_weights(weights):
    lpips, theirs = Lpips(weights), _LPIPS(net="alex", pnet_rand=True)
    backbone = alexnet(weights=None)
    backbone.load_state_dict(torch.load(weights), strict=False)
    for part in theirs.net.children():
        for number, layer in part.named_children():
            layer.load_state_dict(backbone.features[int(number)].state_dict())
    a, b = (torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in (0, 1))
    assert lpips.net == "alex"
    assert torch.allclose(lpips(a, b), theirs(a, b).flatten(), atol=1e-6)
    assert lpips(a, b).shape == (3,)
    assert (lpips(a, b) > 1e-4).all()
    assert torch.allclose(lpips(a, b), lpips(b, a), atol=1e-6)
    assert torch.equal(lpips(a, a), torch.zeros(3))


def test_images_of_other_channels_are_refused(weights):
    with pytest.raises(UserError, match="LPIPS needs images of 1 or 3 channels, not 6: leave lpips_weights"):
        Lpips(weights)(torch.zeros(1, 6, 64, 64), torch.zeros(1, 6, 64, 64))


def test_other_networks_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"neither torchvision's AlexNet nor its VGG-16.*alexnet-owt"):
        Lpips(tmp_path / "other.pth")
