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
    alone = [structural_similarity_index_measure(image[[i]], target[[i]], data_range=2.0) for i in range(n)]
    assert ssim(image, target).shape == (n,)
    assert ssim(image, target).tolist() == pytest.approx([float(a) for a in alone], abs=1e-5)


@pytest.mark.parametrize("metric", [l1, psnr, ssim])
def test_half_precision_is_measured_in_full(metric):
    target = images()
    image = target.bfloat16()
    assert torch.equal(metric(image, target), metric(image.float(), target))
