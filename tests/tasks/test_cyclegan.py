import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gancompress import UserError
from lightning_gancompress.tasks import CycleGAN, Role

AB, BA = "generator_AtoB", "generator_BtoA"
D_AB, D_BA = "discriminator_AtoB", "discriminator_BtoA"


def point(weight: float, bias: float) -> nn.Conv2d:
    """A network of one number: `weight` x + `bias`."""
    layer = nn.Conv2d(1, 1, 1)
    nn.init.constant_(layer.weight, weight)
    nn.init.constant_(layer.bias, bias)
    return layer


@pytest.fixture
def networks():
    return nn.ModuleDict(
        {AB: point(2.0, 0.5), BA: point(0.5, 0.0), D_AB: point(1.0, -1.0), D_BA: point(-2.0, 0.0)}
    )


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def one_side(domain: str, images: Tensor) -> dict[str, object]:
    paths = [f"{domain}{n}.png" for n in range(len(images))]
    return {domain: images, f"index_{domain}": torch.arange(len(images)), f"path_{domain}": paths}


BATCH = one_side("A", pixels(0.0, 1.0)) | one_side("B", pixels(1.0, -1.0))
# images of B: 0.5 and 2.5, judged -0.5 and 1.5; their way back: 0.25 and 1.25
# images of A: 0.5 and -0.5, judged -1 and 1; their way back: 1.5 and -0.5
# real B is judged 0 and -2, real A 0 and -2
GAN_AB, GAN_BA = (1.5**2 + 0.5**2) / 2, (2.0**2 + 0.0) / 2
CYCLE_AB, CYCLE_BA = (0.25 + 0.25) / 2, (0.5 + 0.5) / 2
IDENTITY_AB, IDENTITY_BA = (1.5 + 0.5) / 2, (0.0 + 0.5) / 2  # of B under 2x + 0.5, and of A under x / 2


def test_images_and_what_belongs_to_them(networks):
    task = CycleGAN()
    images = task.generate(networks, BATCH)
    assert {role: image.flatten().tolist() for role, image in images.items()} == {
        AB: [0.5, 2.5],
        BA: [0.5, -0.5],
    }
    logits = task.discriminate(networks, BATCH, images)
    assert logits[D_AB].flatten().tolist() == [-0.5, 1.5]
    assert logits[D_BA].flatten().tolist() == [-1.0, 1.0]
    assert task.targets(BATCH) == {AB: BATCH["B"], BA: BATCH["A"]}
    assert task.target_index(BATCH) == {AB: BATCH["index_B"], BA: BATCH["index_A"]}
    views = task.views(BATCH)
    assert views[AB]["source"] is BATCH["A"]
    assert views[AB]["target"] is BATCH["B"]
    assert views[BA]["path"] == ["B0.png", "B1.png"]


@pytest.mark.parametrize(("domain", "role", "other"), [("A", AB, BA), ("B", BA, AB)])
def test_a_batch_of_one_domain_is_the_source_of_one_and_the_target_of_the_other(
    domain, role, other, networks
):
    task, batch = CycleGAN(), one_side(domain, pixels(0.0))
    assert task.generate(networks, batch).keys() == {role}
    assert task.views(batch)[role].keys() == {"source", "index", "path"}
    assert task.targets(batch) == {other: batch[domain]}
    assert task.target_index(batch)[other] is batch[f"index_{domain}"]


def test_discriminator_loss_by_hand(networks):
    task = CycleGAN()
    images = {role: image.detach() for role, image in task.generate(networks, BATCH).items()}
    loss, terms = task.discriminator_loss(networks, BATCH, images)
    expected = {
        f"{D_AB}_real": (1.0 + 9.0) / 2,
        f"{D_AB}_fake": (0.25 + 2.25) / 2,
        f"{D_BA}_real": (1.0 + 9.0) / 2,
        f"{D_BA}_fake": (1.0 + 1.0) / 2,
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected)
    assert loss.item() == pytest.approx(sum(expected.values()) / 2)


def test_generator_loss_by_hand(networks):
    task = CycleGAN()
    loss, terms = task.generator_loss(networks, BATCH, task.generate(networks, BATCH))
    expected = {
        f"{AB}_gan": GAN_AB,
        f"{BA}_gan": GAN_BA,
        f"{AB}_cycle": CYCLE_AB,
        f"{BA}_cycle": CYCLE_BA,
        f"{AB}_identity": IDENTITY_AB,
        f"{BA}_identity": IDENTITY_BA,
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected)
    cycle, identity = CYCLE_AB + CYCLE_BA, IDENTITY_AB + IDENTITY_BA
    assert loss.item() == pytest.approx(GAN_AB + GAN_BA + 10 * cycle + 5 * identity)


def test_weights_of_the_terms(networks):
    for cycle, identity in ((3.0, 0.2), (3.0, 0.0), (0.0, 0.5)):
        task = CycleGAN(lambda_cycle=cycle, lambda_identity=identity)
        loss, terms = task.generator_loss(networks, BATCH, task.generate(networks, BATCH))
        expected = GAN_AB + GAN_BA + cycle * (CYCLE_AB + CYCLE_BA)
        expected += cycle * identity * (IDENTITY_AB + IDENTITY_BA)
        assert loss.item() == pytest.approx(expected)
        assert any(name.endswith("_cycle") for name in terms) == bool(cycle)
        assert any(name.endswith("_identity") for name in terms) == bool(cycle and identity)


@pytest.mark.parametrize(
    ("left", "terms", "value"),
    [
        ([AB, BA], {f"{r}_{t}" for r in (AB, BA) for t in ("cycle", "identity")}, 10 * 0.75 + 5 * 1.25),
        ([AB, D_AB], {f"{AB}_gan", f"{AB}_identity"}, GAN_AB + 5 * IDENTITY_AB),
        ([AB], {f"{AB}_identity"}, 5 * IDENTITY_AB),
        (
            [AB, BA, D_AB],
            {f"{AB}_gan", *(f"{r}_{t}" for r in (AB, BA) for t in ("cycle", "identity"))},
            GAN_AB + 10 * 0.75 + 5 * 1.25,
        ),
    ],
    ids=["no discriminators", "no partner", "alone", "one discriminator"],
)
def test_what_is_missing_is_gone_without(left, terms, value, networks):
    here, task = nn.ModuleDict({role: networks[role] for role in left}), CycleGAN()
    loss, found = task.generator_loss(here, BATCH, task.generate(here, BATCH))
    assert found.keys() == terms
    assert loss.item() == pytest.approx(value)


def test_a_frozen_partner_has_no_terms_of_its_own_but_both_cycles(networks):
    networks[BA].requires_grad_(False)
    task = CycleGAN("AtoB")
    loss, terms = task.generator_loss(networks, BATCH, task.generate(networks, BATCH))
    assert terms.keys() == {f"{AB}_gan", f"{AB}_cycle", f"{BA}_cycle", f"{AB}_identity"}
    assert loss.item() == pytest.approx(GAN_AB + 10 * (CYCLE_AB + CYCLE_BA) + 5 * IDENTITY_AB)
    loss.backward()
    assert networks[AB].weight.grad.abs() > 0
    assert networks[BA].weight.grad is None


def test_domains_of_different_channels_need_no_identity():
    here = nn.ModuleDict({AB: nn.Conv2d(3, 1, 1), BA: nn.Conv2d(1, 3, 1)})
    batch = one_side("A", torch.rand(2, 3, 4, 4)) | one_side("B", torch.rand(2, 1, 4, 4))
    with pytest.raises(UserError, match=r"lambda_identity: 0\.5 .* differ in channels: set it to 0"):
        CycleGAN().generate(here, batch)
    assert CycleGAN().generate(here, one_side("A", batch["A"])).keys() == {AB}  # it can still be looked at
    task = CycleGAN(lambda_identity=0.0)
    images = task.generate(here, batch)
    loss, _ = task.generator_loss(here, batch, images)
    back = F.l1_loss(here[BA](images[AB]), batch["A"]) + F.l1_loss(here[AB](images[BA]), batch["B"])
    torch.testing.assert_close(loss, 10 * back)


def test_directions():
    assert CycleGAN("AtoB").compressed == (AB,)
    assert CycleGAN("BtoA").compressed == (BA,)
    assert CycleGAN().compressed == (AB, BA)
    assert [Role(role).discriminator for role in (AB, BA)] == [D_AB, D_BA]
    assert [Role(role).suffix for role in (AB, BA, "generator")] == ["_AtoB", "_BtoA", ""]


def test_upstreams_settings_are_the_defaults():
    task = CycleGAN()
    weights = (task.gan_mode, task.lambda_cycle, task.lambda_identity, task.pool_size)
    assert weights == ("lsgan", 10.0, 0.5, 50)
    assert task.generator_first
    assert task.discriminated_channels(1, 3) == 3
