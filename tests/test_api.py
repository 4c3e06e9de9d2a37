"""One call from a network to a small one."""

import json
import re
import signal

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_gancompress
from lightning_gancompress import UserError, compress, load_generator
from lightning_gancompress.callbacks import CollaborativePruning, UniformWidth
from lightning_gancompress.checkpoints import load_networks
from lightning_gancompress.data import DatasetDataModule, SyntheticUnpairedFacades
from lightning_gancompress.networks import (
    PatchDiscriminator,
    ResnetGenerator,
    UnetGenerator,
    use_image_statistics,
)
from lightning_gancompress.pruning import count_macs
from lightning_gancompress.tasks import CycleGAN


class Net(nn.Module):
    """A residual block, with constructor arguments that nobody records."""

    def __init__(self, width, channels=3):
        super().__init__()
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        inner = nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        self.block = nn.Sequential(*inner)
        self.norm = nn.BatchNorm2d(width)
        self.tail = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, source):
        features = self.head(source).relu()
        return self.tail(features + self.norm(self.block(features)).relu()).tanh()


class Halved(Net):
    def forward(self, source):
        return super().forward(source)[:, :, ::2, ::2]


def images(count=16, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *(shape or (3, 16, 16)), generator=generator) * 2 - 1


def sources():
    return TensorDataset(images())


def pairs():
    return TensorDataset(images(), images().flip(1))


def net(width=12, kind=Net, **arguments):
    torch.manual_seed(0)
    return kind(width, **arguments)


def quick(folder, generator, *args, **arguments):
    """A run of one epoch of search and one of fine-tuning, two steps each."""
    settings = {"budget": 0.5, "epochs": 1, "decay_epochs": 0}
    settings |= {} if "policy" in arguments else {"search_epochs": 1}
    settings |= {} if isinstance(arguments.get("data"), LightningDataModule) else {"batch_size": 7}
    settings |= {"folder": folder, "accelerator": "cpu", "logger": False} | arguments
    return compress(generator, *args, **settings)


def state_of(network):
    return {
        "tensors": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "training": [module.training for module in network.modules()],
        "gradients": [parameter.requires_grad for parameter in network.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
        "devices": {tensor.device for tensor in network.state_dict().values()},
    }


class Witness(Callback):
    """Keeps the module."""

    def on_train_start(self, trainer, pl_module):
        self.module, self.agents = pl_module, list(pl_module.agents)


class Stop(Callback):
    """Ctrl-C at the start of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


# -- what it returns ---------------------------------------------------------------------------------------


def test_from_objects(tmp_path):
    generator, discriminator = net(), PatchDiscriminator(6, ndf=4, n_layers=1)
    generator.train()
    generator.head.requires_grad_(False)
    before = [state_of(network) for network in (generator, discriminator)]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    witness = Witness()
    small = quick(tmp_path, generator, discriminator, pairs(), callbacks=[witness])
    assert torch.equal(torch.rand(1), expected)
    assert_equal([state_of(network) for network in (generator, discriminator)], before)
    assert witness.agents == ["generator", "discriminator"]
    assert isinstance(small, Net)
    assert not any(module.training for module in small.modules())
    sample = images(1)
    assert 0.3 < count_macs(small, [sample]) / count_macs(generator, [sample]) <= 0.5
    for file in ("generator.pth", "checkpoints/last.ckpt"):
        loaded = load_generator(tmp_path / file, architecture=net())
        torch.testing.assert_close(loaded(sample), small(sample), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="architecture="):
        load_generator(tmp_path / "generator.pth")
    assert json.loads((tmp_path / "generator.json").read_text())["network"]["init_args"] is None


def assert_equal(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_without_discriminator_and_targets_it_learns_its_own_images(tmp_path):
    generator, witness = net(), Witness()
    generator.norm = nn.Identity()
    distances = []
    for lr in (1e-30, 2e-3):
        small = quick(tmp_path, generator, data=sources(), epochs=10, lr=lr, callbacks=[witness])
        with torch.no_grad():
            distances.append(float((small(images()) - generator.eval()(images())).abs().mean()))
    assert witness.agents == ["generator"]
    assert list(witness.module.student) == ["generator"]
    assert distances[1] < 0.8 * distances[0]


def test_a_missing_discriminator_can_be_trained(tmp_path):
    witness = Witness()
    data = TensorDataset(images(16, 3, 32, 32), images(16, 3, 32, 32))
    quick(tmp_path, net(), data=data, missing="train", callbacks=[witness])
    assert list(witness.module.student) == ["generator", "discriminator"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_resume(tmp_path, epoch):
    settings = {"search_epochs": 2, "epochs": 2}
    whole = quick(tmp_path / "whole", net(), data=sources(), resume=True, **settings)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "run", net(), data=sources(), callbacks=[Stop(epoch)], **settings)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = quick(tmp_path / "run", net(), data=sources(), resume=True, **settings)
    assert_equal(whole.state_dict(), resumed.state_dict())
    again = quick(tmp_path / "run", net(), data=sources(), resume=True, **settings)
    assert_equal(whole.state_dict(), again.state_dict())


def test_what_comes_too_late_for_a_resume(tmp_path):
    quick(tmp_path, net(), data=sources())
    other = net()
    torch.nn.init.zeros_(other.tail.bias)
    for network, options, words in (
        (other, {}, "model.teacher: the generator is not the one that"),
        (net(), {"seed": 1}, "seed_everything: 1 comes too late"),
        (net(), {"budget": 0.9}, "model.budget: 0.9 comes too late"),
        (net(), {"epochs": 0, "decay_epochs": 0}, "model.epochs: a run of 1 epochs comes too late"),
    ):
        with pytest.raises(UserError, match=words):
            quick(tmp_path, network, data=sources(), resume=True, **options)


def test_the_seed_decides(tmp_path):
    runs = [quick(tmp_path, net(), data=sources(), seed=seed).state_dict() for seed in (0, 0, 1)]
    assert_equal(runs[0], runs[1])
    assert not all(
        a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(runs[0].values(), runs[2].values(), strict=True)
    )


def test_a_policy_and_layers_that_stay(tmp_path):
    small = quick(tmp_path, net(), data=sources(), policy=UniformWidth(), ignored_layers=["head"])
    assert small.head.out_channels == 12
    witness = Witness()
    policy = CollaborativePruning(search_epochs=1, members=2)
    quick(tmp_path, net(), data=sources(), policy=policy, callbacks=[witness])
    assert witness.module.policy is policy


# -- what it takes -----------------------------------------------------------------------------------------


def test_a_checkpoint_and_its_discriminator(tmp_path, unet):
    witness = Witness()
    data = TensorDataset(images(16, 3, 32, 32), images(16, 3, 32, 32))
    small = quick(tmp_path, unet, data=data, callbacks=[witness])
    assert witness.agents == ["generator", "discriminator"]
    assert isinstance(small, UnetGenerator)
    torch.testing.assert_close(
        load_generator(tmp_path / "generator.pth")(images(1, 3, 32, 32)), small(images(1, 3, 32, 32))
    )


def test_a_file_with_a_discriminator_of_ones_own(tmp_path, unet):
    networks = load_networks(unet)
    torch.save(networks["networks.generator"][0].state_dict(), tmp_path / "latest_net_G.pth")
    torch.save(networks["networks.discriminator"][0].state_dict(), tmp_path / "latest_net_D.pth")
    own, witness = PatchDiscriminator(6, ndf=4, n_layers=1), Witness()
    data = TensorDataset(images(16, 3, 32, 32), images(16, 3, 32, 32))
    quick(tmp_path / "run", str(tmp_path / "latest_net_G.pth"), own, data, callbacks=[witness])
    assert_equal(witness.module.teacher["discriminator"].state_dict(), own.state_dict())


def test_a_folder_of_images(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(12):
        Image.new("RGB", (40, 30), (20 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    witness = Witness()
    generator = net(channels=1)
    small = quick(tmp_path / "run", generator, data=tmp_path / "photos", size=16, callbacks=[witness])
    assert small(images(1, 1, 16, 16)).shape == (1, 1, 16, 16)
    data = witness.module.trainer.datamodule
    assert next(iter(data.train_dataloader()))["source"].shape == (7, 1, 16, 16)


def test_a_data_module(tmp_path):
    data = DatasetDataModule(sources(), batch_size=5, search_batch_size=4)
    witness = Witness()
    quick(tmp_path, net(), data=data, callbacks=[witness])
    assert witness.module.trainer.datamodule is data
    assert data.batch_size == 5


def test_images_of_any_shape_and_number_of_channels(tmp_path):
    data = TensorDataset(images(16, 5, 8, 12))
    small = quick(tmp_path, net(channels=5), data=data)
    preprocessing = json.loads((tmp_path / "generator.json").read_text())["preprocessing"]
    assert preprocessing == {"crop_size": [8, 12], "in_channels": 5, "range": [-1.0, 1.0]}
    assert small(images(1, 5, 8, 12)).shape == (1, 5, 8, 12)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, net(channels=5), data=data, callbacks=[Stop(1)], search_epochs=2)
    student = load_generator(tmp_path / "checkpoints" / "last.ckpt", architecture=net(channels=5))
    assert student(images(1, 5, 8, 12)).shape == (1, 5, 8, 12)


@pytest.mark.parametrize("change", ["slim", "statistics", "layer"])
def test_a_shipped_network_that_is_no_longer_as_constructed(tmp_path, change):
    torch.manual_seed(0)
    generator = ResnetGenerator(ngf=4, n_blocks=1, norm="batch")
    if change == "slim":
        generator = quick(tmp_path, generator, data=sources(), policy=UniformWidth())
    elif change == "statistics":
        use_image_statistics(generator)
    else:
        generator.model[-1] = nn.Hardtanh()
    small = quick(tmp_path, generator, data=sources(), policy=UniformWidth())
    architecture = None if change == "slim" else generator
    for name in ("generator", "teacher.generator"):
        path = tmp_path / ("checkpoints/last.ckpt" if "." in name else "generator.pth")
        loaded = load_generator(path, network=name, architecture=architecture)
        expected = generator.eval() if "." in name else small
        torch.testing.assert_close(loaded(images(2)), expected(images(2)))
    if change != "slim":
        with pytest.raises(UserError, match="architecture="):
            load_generator(tmp_path / "generator.pth")


def test_both_directions_of_a_cyclegan(tmp_path):
    for name in ("G_A", "G_B"):
        torch.save(ResnetGenerator(ngf=4, n_blocks=6).state_dict(), tmp_path / f"latest_net_{name}.pth")
    data = SyntheticUnpairedFacades(
        str(tmp_path / "facades"), 16, 4, 4, 32, batch_size=8, search_batch_size=8, num_workers=0
    )
    small = quick(
        tmp_path / "run", tmp_path / "latest_net_G_A.pth", data=data, task=CycleGAN(), policy=UniformWidth()
    )
    assert list(small) == ["generator_AtoB", "generator_BtoA"]
    assert (tmp_path / "run" / "generator_BtoA.pth").is_file()


def test_the_way_back_of_a_network_that_nobody_can_construct(tmp_path):
    data = SyntheticUnpairedFacades(
        str(tmp_path / "facades"), 16, 4, 4, 32, batch_size=8, search_batch_size=8, num_workers=0
    )
    settings = {"data": data, "task": CycleGAN("AtoB"), "policy": UniformWidth()}
    with pytest.raises(UserError, match=r"generator_BtoA.* nobody recorded the arguments of test_api\.Net"):
        quick(tmp_path / "run", net(), missing="train", **settings)
    small = quick(tmp_path / "run", net(), distill_weight=10.0, **settings)
    assert small(images(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_arguments_that_another_one_makes_idle(tmp_path):
    data = DatasetDataModule(sources(), batch_size=5, search_batch_size=4)
    for arguments, words in (
        (
            {"data": sources(), "policy": UniformWidth(), "search_epochs": 7},
            "search_epochs is 7, but policy is",
        ),
        ({"data": data, "batch_size": 3}, "batch_size is 3, but data is a DatasetDataModule"),
        ({"data": data, "search_batch_size": 3}, "search_batch_size is 3"),
        ({"data": data, "size": 64}, "size is 64"),
        ({"data": sources(), "size": 64}, "size is 64, but data is a TensorDataset"),
    ):
        with pytest.raises(UserError, match=words):
            quick(tmp_path, net(), **arguments)


# -- bad input ---------------------------------------------------------------------------------------------


class Guided(Net):
    def forward(self, source, strength):
        return super().forward(source) * strength


class Undecided(Net):
    def forward(self, source):
        return super().forward(source if source.mean() > 0 else -source)


class Talkative(Net):
    def forward(self, source):
        return super().forward(source), source


class Labelled(Net):
    def forward(self, source):
        return {"image": super().forward(source)}


class Unconditional(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 1, 3)


class Lists(PatchDiscriminator):
    def forward(self, image):
        return [super().forward(image)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"generator": net(kind=Guided)}, r"Guided can't be given its inputs: .* with one image batch alone"),
        ({"generator": net(kind=Undecided)}, r"Undecided looks at the values of its features .*test_api\.py"),
        ({"generator": net(kind=Talkative)}, r"Talkative returns a tuple for a source 3x16x16, not an image"),
        ({"generator": net(kind=Labelled)}, "Labelled returns a dict for a source"),
        (
            {"generator": net(kind=Halved), "data": pairs()},
            r"Halved makes images 3x8x8, but the targets are 3x16x16 .*or the sources alone",
        ),
        (
            {"ignored_layers": ["head", "block", "norm", "tail"]},
            r"Net has no channels that can be dropped.*ignored_layers",
        ),
        ({"ignored_layers": ["neck"]}, r"ignored_layers: .*'neck'"),
        ({"budget": "2.4G"}, r"generator budget: '2\.4G' is above the teacher's own .* ask for less"),
        (
            {"generator": net(channels=4)},
            r"Net fails on a source of the data, 3x16x16 \(.*: give data of the",
        ),
        ({"generator": lambda x: x}, r"generator is a function: give an nn\.Module or the path"),
        ({"generator": "missing.pth"}, r"missing\.pth"),
        ({"data": None}, "data is a NoneType: give a folder"),
        ({"data": DataLoader(sources())}, "data is a DataLoader: .*DataLoader has one as its dataset"),
        ({"data": TensorDataset(images(5))}, "too few|neighbours"),
        (
            {"discriminator": Unconditional()},
            r"Unconditional fails on an image of the generator .*side by side",
        ),
        ({"discriminator": Lists(6, ndf=4, n_layers=1)}, "Lists returns a list, not one tensor"),
        ({"devices": 0}, "devices"),
    ],
)
def test_one_sentence(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        quick(tmp_path, **({"generator": net(), "data": sources()} | arguments))


@pytest.mark.parametrize("targets", [(), (images(16, 3, 8, 8),)], ids=["none", "as large"])
def test_images_of_another_size(tmp_path, targets):
    small = quick(tmp_path, net(kind=Halved), data=TensorDataset(images(), *targets))
    assert small(images(2)).shape == (2, 3, 8, 8)


# -- the package -------------------------------------------------------------------------------------------


def test_compress_is_there():
    assert "compress" in lightning_gancompress.__all__


def test_other_attributes_are_not():
    with pytest.raises(AttributeError, match="has no attribute 'squeeze'"):
        lightning_gancompress.squeeze  # noqa: B018


KINDS = {
    "double": lambda network: network.double(),
    "half": lambda network: network.to(torch.bfloat16),
    "eval": lambda network: network.eval(),
    "frozen": lambda network: network.requires_grad_(False),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
def test_a_network_of_any_dtype_and_state_gives_a_small_one(kind, precision, tmp_path):
    given = KINDS[kind](net())
    before = state_of(given)
    small = quick(tmp_path, given, data=sources(), policy=UniformWidth(), precision=precision)
    assert small(images(1)).dtype == torch.float32
    assert small(images(1)).isfinite().all()
    assert count_macs(small, [images(1)]) <= 0.5 * count_macs(net(), [images(1)])
    after = state_of(given)
    assert before.pop("tensors").keys() == after.pop("tensors").keys()
    assert before == after


@pytest.mark.parametrize(
    ("scale", "shift", "words"), [(0.5, 0.5, r"\* 2 - 1"), (127.5, 127.5, r"/ 127\.5 - 1"), (1.0, 0.0, None)]
)
def test_images_of_another_range_are_told(scale, shift, words, tmp_path, recwarn):
    loader = DataLoader(TensorDatasetOfDicts(images() * scale + shift), batch_size=4)
    module = LightningDataModule.from_datasets(loader.dataset, loader.dataset, batch_size=4)
    quick(tmp_path, net(), data=module, policy=UniformWidth())
    said = [str(w.message) for w in recwarn if "The first images of the data" in str(w.message)]
    assert len(said) == (words is not None)
    assert words is None or re.search(words, said[0])


class TensorDatasetOfDicts(TensorDataset):
    def __getitem__(self, index):
        return {"source": super().__getitem__(index)[0], "path": str(index)}
