import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.networks import (
    NetworkSpec,
    ResnetGenerator,
    UnetGenerator,
    channel_widths,
    set_channel_widths,
    use_image_statistics,
)

UNET = NetworkSpec("lightning_gancompress.networks.UnetGenerator", {"ngf": 2, "n_downs": 5})


class Custom(nn.Module):
    """A user's network, with the layers that the shipped ones lack."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.act = nn.PReLU(channels)
        self.norm = nn.InstanceNorm2d(channels, affine=True)
        self.head = nn.Linear(channels, 3)
        self.scale = float(torch.ones(2).sum())  # what a constructor on the meta device could not do

    def forward(self, x):
        x = self.norm(self.act(self.depthwise(self.stem(x))))
        return self.head(x.movedim(1, -1)).movedim(-1, 1) * self.scale


CUSTOM = NetworkSpec(f"{__name__}.Custom", {"channels": 4})


def halved(network: nn.Module) -> dict[str, list[int]]:
    widths = channel_widths(network)
    return {name: [w if w <= 3 else w // 2 for w in layer] for name, layer in widths.items()}


def test_build_passes_the_arguments_and_copies_the_tensors():
    network = UNET.build()
    assert isinstance(network, UnetGenerator)
    twin = UNET.build(network.state_dict())
    assert not any(tensor.is_meta for tensor in twin.state_dict().values())
    source = torch.rand(1, 3, 32, 32)
    expected = network.eval()(source)
    assert torch.equal(twin.eval()(source), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(network(source), expected)


def test_a_users_class_is_built_and_loaded():
    network = CUSTOM.build()
    twin = CUSTOM.build(network.state_dict())
    source = torch.rand(1, 3, 8, 8)
    assert torch.equal(twin(source), network(source))


@pytest.mark.parametrize(
    "network", [UnetGenerator(1, ngf=2, n_downs=5), ResnetGenerator(ngf=2, norm="batch", n_blocks=1)]
)
def test_a_shipped_network_knows_its_recipe(network):
    spec = NetworkSpec.of(network)
    assert spec.class_path == f"lightning_gancompress.networks.{type(network).__name__}"
    twin = spec.build(network.state_dict())
    source = torch.rand(1, network.in_channels, 32, 32)
    assert torch.equal(twin.eval()(source), network.eval()(source))


def test_a_users_network_is_described_by_its_config():
    config = {"class_path": CUSTOM.class_path, "init_args": {"channels": 4}}
    assert NetworkSpec.of(Custom(4), config) == CUSTOM


def test_a_network_of_unknown_arguments_is_built_on_one_like_it():
    spec = NetworkSpec.of(Custom(4))
    assert spec == NetworkSpec(CUSTOM.class_path, None)
    with pytest.raises(UserError, match=r"arguments that .*Custom .* not recorded: pass such a network"):
        spec.build()
    whole = Custom(4)
    before = copy.deepcopy(whole.state_dict())
    narrow = NetworkSpec(CUSTOM.class_path, {"channels": 4}, widths=halved(whole)).build()
    twin = dataclasses.replace(spec, widths=halved(whole)).build(narrow.state_dict(), whole)
    source = torch.rand(1, 3, 8, 8)
    assert torch.equal(twin(source), narrow(source))
    assert channel_widths(whole) == channel_widths(Custom(4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    with pytest.raises(UserError, match="The channel widths are not those of ResnetGenerator"):
        dataclasses.replace(spec, widths=halved(whole)).build(narrow.state_dict(), ResnetGenerator())


def test_plain_types_survive_json():
    spec = NetworkSpec(CUSTOM.class_path, {"channels": 4}, "image", halved(CUSTOM.build()))
    assert NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("description", [{}, {**UNET.to_dict(), "colour": 1}])
def test_a_strange_description_is_refused(description):
    with pytest.raises(UserError, match="no description of a network"):
        NetworkSpec.from_dict(description)


def test_an_unknown_reading_is_refused():
    with pytest.raises(UserError, match="batch_norm is 'batch'"):
        NetworkSpec.from_dict({**UNET.to_dict(), "batch_norm": "batch"})


@pytest.mark.parametrize(
    ("class_path", "words"),
    [
        ("no_such_package.Net", "can't be imported.*no_such_package"),
        ("lightning_gancompress.networks.Net", "can't be imported"),
        ("Net", "can't be imported"),
        ("json.dumps", "not a torch.nn.Module"),
        ("json.JSONEncoder", "not a torch.nn.Module"),
    ],
)
def test_a_class_that_is_no_network_is_named(class_path, words):
    with pytest.raises(UserError, match=words):
        NetworkSpec(class_path, {}).build()


def test_a_wrong_argument_is_named():
    with pytest.raises(UserError, match="ngff"):
        NetworkSpec(UNET.class_path, {"ngff": 3}).build()


def test_differences_are_listed_and_cut():
    tensors = UNET.build().state_dict()
    wrong = {key: value for key, value in tensors.items() if "running" not in key}
    wrong["extra"] = torch.zeros(1)
    wrong["model.model.0.weight"] = torch.zeros(2, 1, 4, 4)
    with pytest.raises(UserError) as error:
        UNET.build(wrong)
    message = str(error.value)
    assert "missing keys: model.model.1.model.2.running_mean, " in message
    assert message.count("running_") == 3
    assert " and 11 more" in message
    assert "unexpected keys: extra" in message
    assert "model.model.0.weight is (2, 1, 4, 4) instead of (2, 3, 4, 4)" in message


def test_the_counter_of_old_batch_norms_may_be_missing():
    network = UNET.build()
    tensors = {key: value for key, value in network.state_dict().items() if not key.endswith("tracked")}
    assert {
        int(value) for key, value in UNET.build(tensors).state_dict().items() if key.endswith("tracked")
    } == {0}


def test_widths_of_every_kind_of_layer():
    assert channel_widths(Custom(6)) == {
        "stem": [3, 6],
        "depthwise": [6, 6, 6],
        "act": [6],
        "norm": [6],
        "head": [6, 3],
    }
    transposed = channel_widths(ResnetGenerator(ngf=2, n_blocks=0))
    assert transposed["model.10"] == [8, 4]
    assert transposed["model.11"] == [4]  # an instance norm without parameters warns when its width is stale


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(
    ("whole", "size"),
    [
        (lambda norm: ResnetGenerator(ngf=4, n_blocks=1, norm=norm), 16),
        (lambda norm: UnetGenerator(ngf=4, n_downs=5, norm=norm), 32),
        (lambda norm: Custom(8), 8),
    ],
)
def test_a_network_of_other_widths_runs_and_is_rebuilt(whole, size, norm):
    network = whole(norm)
    widths = halved(network)
    set_channel_widths(network, widths)
    assert channel_widths(network) == widths
    source = torch.rand(1, 3, size, size)
    expected = network.eval()(source)
    rebuilt = whole(norm)
    set_channel_widths(rebuilt, widths)
    rebuilt.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt.eval()(source), expected)


def test_build_sets_the_widths_and_draws_as_the_constructor_would():
    torch.manual_seed(0)
    args = {"ngf": 8, "n_downs": 5, "init_gain": 0.5}
    widths = halved(UnetGenerator(**args))
    network = NetworkSpec(UNET.class_path, args, widths=widths).build()
    assert channel_widths(network) == widths
    weight = network.model.model[1].model[3].model[1].weight
    assert weight.shape == (16, 8, 4, 4)
    assert weight.std().item() == pytest.approx(0.5, rel=0.05)
    twin = NetworkSpec(UNET.class_path, args, widths=widths).build(network.state_dict())
    source = torch.rand(1, 3, 32, 32)
    assert torch.equal(twin.eval()(source), network.eval()(source))


def test_layers_whose_widths_stay_keep_their_weights():
    network = Custom(6)
    before = copy.deepcopy(network)
    set_channel_widths(network, {**channel_widths(network), "head": [6, 2]})
    assert network.stem.weight is not before.stem.weight
    assert torch.equal(network.stem.weight, before.stem.weight)
    assert network.head.weight.shape == (2, 6)


def test_widths_of_another_network_are_refused():
    widths = channel_widths(Custom(6))
    widths["tail"] = widths.pop("head")
    with pytest.raises(UserError, match="missing layers: head; unknown layers: tail"):
        set_channel_widths(Custom(6), widths)


def test_image_statistics_are_those_of_training_on_one_image():
    network = UnetGenerator(ngf=2, n_downs=5, dropout=False, init_gain=0.3)
    source = torch.rand(2, 3, 32, 32)
    expected = torch.cat([copy.deepcopy(network).train()(image[None]) for image in source])
    use_image_statistics(network)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    torch.testing.assert_close(network.eval()(source), expected)


def test_image_reading_drops_the_running_statistics_and_can_be_stored():
    tensors = UNET.build().state_dict()
    spec = UNET.reading("image")
    network = spec.build(tensors).eval()
    assert not any("running" in key for key in network.state_dict())
    source = torch.rand(1, 3, 32, 32)
    assert torch.equal(spec.build(network.state_dict()).eval()(source), network(source))


def test_running_statistics_do_not_come_back():
    assert UNET.reading(None) == UNET
    with pytest.raises(UserError, match="keeps none"):
        UNET.reading("image").reading("running")
