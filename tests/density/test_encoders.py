import pytest
import torch
from torch import nn
from torchvision import models

from lightning_gancompress import UserError
from lightning_gancompress.density import BackboneEncoder, CriticEncoder, GeneratorEncoder, cache_key
from lightning_gancompress.networks import PatchDiscriminator, PixelDiscriminator, ResnetGenerator

IMAGES = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
IMAGES = IMAGES * torch.tensor([0.1, 0.5, 1.0]).view(
    3, 1, 1, 1
)  # random networks hardly tell noise from noise


# -- the teacher's critic ------------------------------------------------------------------------------


def critic(kind: type[nn.Module] = PatchDiscriminator) -> tuple[CriticEncoder, nn.Module]:
    torch.manual_seed(0)
    discriminator = kind(ndf=4, init_gain=0.3).eval().requires_grad_(False)

    def judge(source, image):
        return discriminator(torch.cat([source, image], 1))

    return CriticEncoder(judge, discriminator), discriminator


def test_the_critic_sees_mean_and_deviation_before_its_last_layer():
    encoder, discriminator = critic()
    source = IMAGES.flip(0)
    maps = discriminator.model[:-1](torch.cat([source, IMAGES], 1)).flatten(2)
    expected = torch.cat([maps.mean(2), maps.std(2, unbiased=False)], 1)
    torch.testing.assert_close(encoder.features(source, IMAGES), expected, atol=1e-4, rtol=1e-3)
    normalised = encoder(source, IMAGES)
    torch.testing.assert_close(
        normalised, expected / expected.norm(dim=1, keepdim=True), atol=1e-3, rtol=1e-3
    )
    assert not torch.allclose(normalised, encoder(IMAGES, IMAGES))


def test_the_critics_last_layer_is_that_which_is_called_last():
    class Judge(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits, self.head, self.whole = nn.Conv2d(4, 1, 1), nn.Conv2d(6, 4, 1), nn.Linear(4, 1)

        def forward(self, pair, pool=False):
            features = self.head(pair).relu()
            return self.whole(features.mean((2, 3))) if pool else self.logits(features)

    discriminator = Judge().requires_grad_(False)
    for pool in (False, True):
        encoder = CriticEncoder(
            lambda a, b, pool=pool: discriminator(torch.cat([a, b], 1), pool), discriminator
        )
        maps = discriminator.head(torch.cat([IMAGES, IMAGES], 1)).relu()
        features = encoder.features(IMAGES, IMAGES)
        torch.testing.assert_close(features[:, :4], maps.mean((2, 3)))
        deviation = torch.zeros(3, 4) if pool else maps.flatten(2).std(2, unbiased=False)
        torch.testing.assert_close(features[:, 4:], deviation, atol=1e-3, rtol=1e-3)


def test_the_critic_is_differentiable_also_for_flat_images():
    encoder, _ = critic(PixelDiscriminator)  # no padding, so that a flat image stays flat
    for image in (IMAGES.clone(), torch.full_like(IMAGES, 0.5)):
        image.requires_grad_(True)
        encoder(image, image).square()[:, ::3].sum().backward()
        assert image.grad.isfinite().all()
        assert image.grad.abs().sum() > 0


def test_the_critic_leaves_no_hook_and_owns_no_tensors():
    encoder, discriminator = critic()
    encoder(IMAGES, IMAGES)
    assert not any(module._forward_pre_hooks for module in discriminator.modules())
    assert list(encoder.state_dict()) == []


# -- the teacher's generator ---------------------------------------------------------------------------


def test_the_generator_is_read_at_its_first_smallest_map_and_run_no_further():
    torch.manual_seed(0)
    generator = ResnetGenerator(ngf=4, n_blocks=2, init_gain=0.3).eval().requires_grad_(False)
    convolutions = [m for m in generator.modules() if isinstance(m, nn.Conv2d)]
    called = []
    for layer in convolutions:
        layer.register_forward_hook(lambda layer, *_: called.append(convolutions.index(layer)))
    encoder = GeneratorEncoder(generator)
    for size in (40, 32):  # the map is found once for each
        images = IMAGES[..., :size, :size].requires_grad_()
        flat = generator.model[:8](images).flatten(2)
        assert flat.shape == (3, 16, (size // 4) ** 2)
        expected = torch.cat([flat.mean(2), flat.std(2, unbiased=False)], 1)
        features = encoder.features(images, images)
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-3)
        called.clear()
        assert torch.equal(encoder.features(images, images), features)
        assert called == [0, 1, 2]
        assert torch.autograd.grad(features.sum(), images)[0].any()


class Tidy(nn.Module):
    """A network of somebody else's, which forgets at the end of its forward what it has gathered."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.down = nn.Conv2d(4, 4, 4, stride=2, padding=1)
        self.gathered: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.gathered.append(self.first(x))
        x = nn.functional.interpolate(self.down(self.gathered[-1]), scale_factor=2)
        x = self.last(sum(self.gathered, start=x))
        self.gathered.clear()
        return x


def test_a_network_of_somebody_elses_is_run_to_its_end():
    torch.manual_seed(0)
    generator = Tidy().eval().requires_grad_(False)
    before, flat = generator(IMAGES), generator.down(generator.first(IMAGES)).flatten(2)
    expected = torch.cat([flat.mean(2), flat.std(2, unbiased=False)], 1)
    encoder = GeneratorEncoder(generator)
    for _ in range(2):
        torch.testing.assert_close(encoder.features(IMAGES, IMAGES), expected, atol=1e-4, rtol=1e-3)
        assert torch.equal(generator(IMAGES), before)


# -- a classifier from a file --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mobilenet():
    torch.manual_seed(0)
    network = models.mobilenet_v2(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the images below: else random layers lose the signal
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    network(torch.rand(8, 3, 64, 64))
    return network.eval()


@pytest.fixture
def file(tmp_path, mobilenet):
    torch.save(mobilenet.state_dict(), tmp_path / "mobilenet.pth")
    return tmp_path / "mobilenet.pth"


def pooled(network: nn.Module, images: torch.Tensor, size: int) -> torch.Tensor:
    """The features that enter the head, the way torchvision documents it."""
    images = nn.functional.interpolate((images + 1) / 2, (size, size), mode="bilinear")
    images = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    return network.features(images).mean((2, 3))


def folded(network: nn.Module) -> dict[str, torch.Tensor]:
    """Batch norm folded into the convolution before it, which keeps its name; half precision."""
    state = network.state_dict()
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        parent, _, number = norm.rpartition(".")
        layer = f"{parent}.{int(number) - 1}"
        gamma, beta, mean, variance = (
            state.pop(f"{norm}.{key}") for key in ("weight", "bias", "running_mean", "running_var")
        )
        del state[f"{norm}.num_batches_tracked"]
        scale = gamma / (variance + 1e-5).sqrt()
        state[f"{layer}.weight"] = state[f"{layer}.weight"] * scale.view(-1, 1, 1, 1)
        state[f"{layer}.bias"] = beta - mean * scale
    return {key: value.half() for key, value in state.items()}


def test_a_classifier_reads_colours(file):
    with pytest.raises(UserError, match="mobilenet_v2 reads images of 1 or 3 channels, not 6"):
        BackboneEncoder("mobilenet_v2", str(file), size=64)(IMAGES, torch.cat([IMAGES, IMAGES], 1))


def test_a_classifier_file_gives_its_pooled_features(file, mobilenet):
    encoder = BackboneEncoder("mobilenet_v2", str(file), size=64)
    features = encoder.features(IMAGES, IMAGES)
    assert features.shape == (3, 1280)
    torch.testing.assert_close(features, pooled(mobilenet, IMAGES, 64), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(encoder(IMAGES, IMAGES).norm(dim=1), torch.ones(3))


def test_a_folded_file_gives_the_same_features(tmp_path, mobilenet):
    torch.save(folded(mobilenet), tmp_path / "folded.pth")
    encoder = BackboneEncoder("mobilenet_v2", str(tmp_path / "folded.pth"), size=64, fold="folded")
    expected = pooled(mobilenet, IMAGES, 64)
    error = (encoder.features(IMAGES, IMAGES) - expected).norm(dim=1)
    apart = (expected - expected[[1, 2, 0]]).norm(dim=1)
    assert error.max() < 0.05 * apart.min()  # half precision


def test_the_encoder_is_frozen_and_passes_gradients_to_the_image(file):
    encoder = BackboneEncoder("mobilenet_v2", str(file), size=64)
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    image = IMAGES.clone().requires_grad_(True)
    encoder(IMAGES, image)[:, 0].sum().backward()
    assert image.grad.abs().sum() > 0


def test_grey_images_are_repeated(file):
    encoder = BackboneEncoder("mobilenet_v2", str(file), size=64)
    grey = IMAGES[:, :1]
    torch.testing.assert_close(encoder(grey, grey), encoder(grey, grey.repeat(1, 3, 1, 1)))


def test_usual_wrappings_of_weights_are_unwrapped(tmp_path, mobilenet):
    """A parallel wrapper's prefix, a `state_dict` entry, and projections instead of the head."""
    state = {f"module.{k}": v for k, v in mobilenet.state_dict().items() if not k.startswith("classifier")}
    state["module.projection_head.0.weight"] = state["module.prototypes.weight"] = torch.zeros(2, 2)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "swav.pth")
    encoder = BackboneEncoder("mobilenet_v2", str(tmp_path / "swav.pth"), size=64)
    torch.testing.assert_close(
        encoder.features(IMAGES, IMAGES), pooled(mobilenet, IMAGES, 64), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "convnext_tiny", "swin_t"])
def test_every_kind_of_head_is_taken_off(tmp_path, name):
    network = models.get_model(name, weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    features = BackboneEncoder(name, str(tmp_path / "weights.pth"), size=64).features(IMAGES, IMAGES)
    assert features.ndim == 2
    assert features.shape[1] != 1000


def test_the_size_of_the_images_is_part_of_the_cache_key(file):
    small, large = (BackboneEncoder("mobilenet_v2", str(file), size=size) for size in (64, 96))
    assert cache_key(small) != cache_key(large)
    assert cache_key(small) == cache_key(BackboneEncoder("mobilenet_v2", str(file), size=64))


@pytest.mark.parametrize("name", ["mobilenet_v9", "fcn_resnet50"])
def test_an_unknown_classifier_is_named(file, name):
    with pytest.raises(UserError, match=f"encoder.name: .*{name!r}"):
        BackboneEncoder(name, str(file))


def test_bad_weight_files_are_named(tmp_path, mobilenet):
    path = tmp_path / "weights.pth"

    def message(name: str = "mobilenet_v2", fold: str = "batch_norm") -> str:
        with pytest.raises(UserError, match=r"^encoder\.") as error:
            BackboneEncoder(name, str(path), 64, fold)
        return str(error.value)

    assert str(path) in message()  # missing
    path.write_bytes(b"not a file of tensors")
    assert str(path) in message()
    torch.save(torch.zeros(3), path)
    assert "holds no state dict" in message()
    torch.save(mobilenet.state_dict(), path)
    assert "does not fit resnet18" in message("resnet18")
    assert "with encoder.fold=folded: features.0.1" in message(fold="folded")
    assert "vgg11 can't be built without batch norm" in message("vgg11", "folded")
    torch.save({**mobilenet.state_dict(), "features.3.conv.2.weight": torch.zeros(3, 3, 1, 1)}, path)
    assert "does not fit mobilenet_v2: " in message()
    torch.save(folded(mobilenet), path)
    assert "with encoder.fold=batch_norm: features.0.1" in message()
    assert "try encoder.fold=folded" in message()
