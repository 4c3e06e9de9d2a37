import copy
import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_gancompress import UserError
from lightning_gancompress.networks import bake_parametrizations, copy_network


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


NORMS = {
    "weight norm": parametrizations.weight_norm,
    "old weight norm": old_weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.fixture(params=NORMS)
def network(request):
    layers = [nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 64, 5)]
    norm = NORMS[request.param]
    network = nn.Sequential(*(norm(layer) if layer._parameters else layer for layer in layers))
    network(torch.randn(1, 3, 8, 8)).sum().backward()  # leaves weights with a graph behind
    return network


def test_a_copy_does_the_same_and_stands_alone(network):
    image = torch.randn(2, 3, 8, 8)
    expected = network.eval()(image)
    twin = copy_network(network)
    assert torch.equal(twin(image), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(network(image), expected)


def test_baked_weights_are_plain_and_do_the_same(network):
    image = torch.randn(2, 3, 8, 8)
    expected = network.eval()(image)
    baked = bake_parametrizations(copy_network(network.train())).eval()
    assert set(baked.state_dict()) == {f"{layer}.{name}" for layer in "013" for name in ("weight", "bias")}
    assert all(parameter.is_leaf for parameter in baked.parameters())
    assert [type(layer) for layer in baked] == [nn.Conv2d, nn.ConvTranspose2d, nn.Flatten, nn.Linear]
    torch.testing.assert_close(baked(image), expected)
    assert torch.equal(network.eval()(image), expected)  # its weights are still computed
    assert not set(network.state_dict()) <= set(baked.state_dict())
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 64, 5))
    plain.load_state_dict(baked.state_dict())
    baked.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert torch.equal(plain(image), baked(image))


def test_what_can_not_be_copied_is_named():
    network = nn.Conv2d(3, 3, 1)
    network.lock = threading.Lock()
    with pytest.raises(UserError, match=r"Conv2d can't be copied .*lock"):
        copy_network(network)
