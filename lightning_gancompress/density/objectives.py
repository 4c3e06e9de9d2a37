"""Objectives that minimise the difference of the student's local density from the teacher's."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gancompress.errors import UserError

Comparison = Literal["local", "global", "standard"]


def adversarial_density(real: Tensor, fake: Tensor, members: int, comparison: Comparison) -> Tensor:
    """Relativistic average loss that is small when the logits `real` are above the logits `fake`.

    In the discriminator's loss `real` are the teacher's images, in the generator's loss the student's. Each
    logit is compared with the mean of the other logits of its neighbourhood (after Jolicoeur-Martineau 2019):
    without a comparison within neighbourhoods only the global distributions would be matched.

    Args:
        real: Patch logits `(B, 1, h, w)`; `B` is neighbourhoods x `members`, one neighbourhood after the
            other.
        fake: Patch logits of the other images, in the same order.
        members: Images per neighbourhood.
        comparison: `local` compares within the neighbourhood, `global` with the whole batch, `standard` with
            nothing: the plain cross-entropy.
    """
    real, fake = real.float(), fake.float()
    if comparison == "standard":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if comparison == "global":
        members = len(real)
    real = real.reshape(len(real) // members, -1)
    fake = fake.reshape(len(fake) // members, -1)
    relative_real = real - fake.mean(1, keepdim=True)
    relative_fake = fake - real.mean(1, keepdim=True)
    return 0.5 * (F.softplus(-relative_real).mean() + F.softplus(relative_fake).mean())


def kernel_density(teacher: Tensor, student: Tensor, members: int) -> Tensor:
    """Integrated squared error between the Parzen densities of teacher and student, per neighbourhood.

    For Gaussian estimates of bandwidth `h` it is, up to a constant factor,
    `mean K(t, t') + mean K(s, s') - 2 mean K(t, s)` with a Gaussian `K` of bandwidth `sqrt(2) h`, that is,
    the squared MMD. `h` is the median distance between the teacher's own samples of the neighbourhood, the
    lower one of two.

    Args:
        teacher: Features `(B, F)` of the teacher's images, neighbourhood by neighbourhood.
        student: Features of the student's images of the same sources; gradients flow into them.
        members: Images per neighbourhood.

    Returns:
        The mean over neighbourhoods, at least 0; 0 for equal features.

    Raises:
        UserError: `members` is below 2.
    """
    if members < 2:
        raise UserError(f"members: {members} image has no distances to compare; choose at least 2.")
    t = teacher.float().reshape(-1, members, teacher.shape[-1])
    s = student.float().reshape(-1, members, student.shape[-1])
    within = _squared_distances(t, t)
    apart = within[:, ~torch.eye(members, dtype=torch.bool, device=t.device)]
    variance = apart.median(dim=1).values.clamp_min(1e-8).view(-1, 1, 1).detach()

    def overlap(squared: Tensor) -> Tensor:
        return (-squared / (4 * variance)).exp().mean(dim=(1, 2))

    ise = overlap(within) + overlap(_squared_distances(s, s)) - 2 * overlap(_squared_distances(t, s))
    return ise.mean()


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(-1)
