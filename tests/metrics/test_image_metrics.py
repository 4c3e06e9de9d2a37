import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_gancompress.metrics import l1, psnr, ssim


def images(n=3, size=24):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_values_per_image_by_closed_form():
    target = torch.zeros(2, 3, 16, 16)
    image = target + torch.tensor([0.5, -0.1]).view(2, 1, 1, 1)
    assert l1(image, target).tolist() == pytest.approx([0.5, 0.1])
    # the range is 2, so the peak's square is 4
    assert psnr(image, target).tolist() == pytest.approx([12.0412, 26.0206], abs=1e-3)


def test_equal_images_are_best_and_finite():
    image = images()
    assert l1(image, image).tolist() == [0, 0, 0]
    assert psnr(image, image).tolist() == [100, 100, 100]
    assert ssim(image, image).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("n", [1, 3])
def test_ssim_is_that_of_each_image_alone(n):
    target = images(n)
    image = (target + 0.3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))).clamp(
        -1, 1
    )
    alone = [
        structural_similarity_index_measure((image[[i]] + 1) / 2, (target[[i]] + 1) / 2, data_range=1.0)
        for i in range(n)
    ]
    assert ssim(image, target).shape == (n,)
    assert ssim(image, target).tolist() == pytest.approx([float(a) for a in alone], abs=1e-5)


@pytest.mark.parametrize(("a", "b"), [(120, 135), (127, 128), (0, 255), (0, 0), (10, 20)])
def test_ssim_of_flat_images_is_that_of_their_grey_levels(a, b):
    """Without structure only the luminances count, of images in 0 to 255 as Wang et al. have them."""
    luminance = (2 * a * b + (0.01 * 255) ** 2) / (a**2 + b**2 + (0.01 * 255) ** 2)
    image, target = (torch.full((1, 3, 16, 16), level / 127.5 - 1) for level in (a, b))
    assert float(ssim(image, target)) == pytest.approx(luminance, abs=1e-3)  # in single precision


@pytest.mark.parametrize("metric", [l1, psnr, ssim])
def test_half_precision_is_measured_in_full(metric):
    target = images()
    image = target.bfloat16()
    assert torch.equal(metric(image, target), metric(image.float(), target))
