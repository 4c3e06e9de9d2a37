import contextlib
import json
import urllib.error
from pathlib import Path

import pytest
import torch
import torch_fidelity
from torch.utils.data import Dataset
from torch_fidelity import feature_extractor_inceptionv3 as their_inception

from lightning_gancompress import UserError
from lightning_gancompress.metrics import InceptionFeatures, distances, to_uint8
from lightning_gancompress.metrics import fid as fid_module


class Pictures(Dataset):
    """What torch-fidelity takes as an input: uint8 (3, H, W)."""

    def __init__(self, images):
        self.images = to_uint8(images)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def pictures(seed, n=12, contrast=1.0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 2 - 1
    return contrast * torch.nn.functional.interpolate(coarse, size=(24, 40), mode="bilinear")


@pytest.mark.parametrize("feature", [64, 192])
def test_fid_and_kid_equal_torch_fidelity(feature, inception_weights):
    fake, real = pictures(0, contrast=0.5), pictures(1, n=14)
    inception = InceptionFeatures(feature, inception_weights)
    found = distances(torch.cat([inception(part) for part in fake.split(5)]), inception(real))

    expected = torch_fidelity.calculate_metrics(
        input1=Pictures(fake),
        input2=Pictures(real),
        fid=True,
        kid=True,
        kid_subset_size=12,
        feature_layer_fid=str(feature),
        feature_layer_kid=str(feature),
        feature_extractor_weights_path=str(inception_weights),
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    assert expected["frechet_inception_distance"] > 1e-2
    assert found == {
        f"fid_{feature}": pytest.approx(expected["frechet_inception_distance"], rel=1e-3),
        f"kid_{feature}": pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3, abs=1e-7),
    }


def test_order_and_batches_of_images_do_not_matter_to_fid(inception_weights):
    images, inception = pictures(0), InceptionFeatures(64, inception_weights)
    assert inception(images).shape == (12, 64)
    found = distances(inception(images), inception(images.flip(0)))
    assert found["fid_64"] == pytest.approx(0, abs=1e-3)


def test_grey_images_count_as_rgb_and_other_channels_are_refused(inception_weights):
    grey, inception = pictures(0, n=2)[:, :1], InceptionFeatures(64, inception_weights)
    assert torch.equal(inception(grey), inception(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(UserError, match="not 5"):
        inception(torch.zeros(1, 5, 8, 8))


def test_names_say_the_feature_unless_it_is_the_usual_one():
    features = torch.rand(4, 768)
    assert distances(features, features).keys() == {"fid_768", "kid_768"}
    features = torch.zeros(2, 2048)
    assert distances(features, features).keys() == {"fid", "kid"}


def test_distances_are_deterministic_and_of_known_value():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(500, 3, generator=generator)
    found = distances(real + torch.tensor([3.0, 0.0, 0.0]), real)
    assert found["fid_3"] == pytest.approx(9.0, rel=1e-4)  # the squared distance of the means
    assert distances(real + torch.tensor([3.0, 0.0, 0.0]), real) == found


def test_one_image_is_too_few():
    with pytest.raises(UserError, match="at least 2 images in each set, not 1"):
        distances(torch.rand(1, 64), torch.rand(5, 64))


def test_uint8_rounds_and_clamps():
    pixels = torch.tensor([-1.2, -1.0, -1 + 2 * 0.4 / 255, -1 + 2 * 0.6 / 255, 0.0, 1.0, 1.3])
    assert to_uint8(pixels).tolist() == [0, 0, 0, 1, 128, 255, 255]
    # what a picture holds comes back unchanged
    levels = torch.arange(256) / 255 * 2 - 1
    assert to_uint8(levels).tolist() == list(range(256))


class Bomb:
    """Code in a pickle, which runs when it is read without care."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_weights_that_are_missing_wrong_or_code_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file .*gone\.pth"):
        InceptionFeatures(64, tmp_path / "gone.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth doesn't hold torch-fidelity's Inception"):
        InceptionFeatures(64, tmp_path / "other.pth")
    torch.save({"bomb": Bomb(tmp_path / "mark")}, tmp_path / "bomb.pth")
    with pytest.raises(UserError, match="could run code"):
        InceptionFeatures(64, tmp_path / "bomb.pth")
    assert not (tmp_path / "mark").exists()


def test_failed_download_names_the_argument(monkeypatch):
    def download(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(their_inception, "load_state_dict_from_url", download)
    with pytest.raises(UserError, match=r"no route to host.*`fid_weights`"), contextlib.redirect_stderr(None):
        InceptionFeatures(64)


def test_numbers_are_those_of_torch_fidelitys_command_line(inception_weights, tmp_path, capsys, monkeypatch):
    from PIL import Image
    from torch_fidelity import fidelity

    sets = {"fake": pictures(0, contrast=0.5), "real": pictures(1, n=14)}
    for name, images in sets.items():
        (tmp_path / name).mkdir()
        for number, pixels in enumerate(to_uint8(images)):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{number:02}.png")
    options = {
        "feature-layer-fid": "64",
        "feature-layer-kid": "64",
        "kid-subset-size": "12",
        "batch-size": "4",
    }
    options |= {"input1": str(tmp_path / "fake"), "input2": str(tmp_path / "real")}
    options |= {"feature-extractor-weights-path": str(inception_weights)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    words += ["--fid", "--kid", "--cpu", "--no-cache", "--silent", "--json", "--save-cpu-ram"]
    monkeypatch.setattr("sys.argv", ["fidelity", *words])
    fidelity.main()
    printed = capsys.readouterr().out
    theirs = json.loads(printed[printed.index("{") :])
    ours = distances(*map(InceptionFeatures(64, inception_weights), sets.values()))
    assert ours["fid_64"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours["kid_64"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


def test_legacy_resize_is_pytorch_fids(inception_weights):
    images = pictures(0, n=4)
    legacy = InceptionFeatures(64, inception_weights, resize="pytorch-fid")
    usual = InceptionFeatures(64, inception_weights)
    assert legacy.weights_sha256 == usual.weights_sha256
    network = fid_module.load_inception(64, inception_weights)
    # by hand: whole numbers, between 0 and 1, resized without antialiasing, between -1 and 1
    x = ((images + 1) / 2 * 255).add(1e-3).floor() / 255
    x = 2 * torch.nn.functional.interpolate(x, (299, 299), mode="bilinear") - 1
    stem = [network.Conv2d_1a_3x3, network.Conv2d_2a_3x3, network.Conv2d_2b_3x3, network.MaxPool_1]
    with torch.inference_mode():
        for layer in stem:
            x = layer(x)
    assert torch.allclose(legacy(images), x.mean((2, 3)), atol=1e-5)
    assert not torch.allclose(legacy(images), usual(images), atol=1e-3)


def test_no_resize_antialiases():
    images = torch.zeros(1, 3, 4 * 299, 4 * 299, dtype=torch.uint8)
    images[..., ::4] = 255  # every fourth column, of which a plain bilinear resize to a quarter sees none
    assert torch.equal(fid_module.legacy_pixels(images), torch.full((1, 3, 299, 299), -1.0))
    smooth = torch.nn.functional.interpolate(images.float(), (299, 299), mode="bilinear", antialias=True)
    assert smooth.mean() > 60


def test_legacy_pixels_are_cut_down():
    values = torch.tensor([-1.0, 1.0, 0.0, 0.999]).view(1, 1, 2, 2)
    assert to_uint8(values, rounded=False).flatten().tolist() == [0, 255, 127, 254]
    assert to_uint8(values).flatten().tolist() == [0, 255, 128, 255]
    every = torch.arange(256.0) / 255 * 2 - 1
    assert torch.equal(to_uint8(every, rounded=False), torch.arange(256, dtype=torch.uint8))
