"""Objectives that pull the student's local density towards the teacher's."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gancompress.errors import UserError

Comparison = Literal["local", "global", "standard"]


def adversarial_density(winner: Tensor, loser: Tensor, members: int, comparison: Comparison) -> Tensor:
    """Relativistic average loss that is small when `winner` is judged more real than `loser`.

    For the critic the teacher's images win, for the generator the student's. A critic that never compares
    within the neighbourhood would only match distributions globally, so each logit is compared with the
    neighbourhood's mean on the other side (after Jolicoeur-Martineau 2019).

    Args:
        winner: Patch logits `(B, 1, h, w)`; `B` is neighbourhoods x `members`, one neighbourhood after the
            other.
        loser: Likewise, from the other side.
        members: Images per neighbourhood.
        comparison: `local` compares within the neighbourhood, `global` with the whole batch, `standard` with
            nothing: the plain cross-entropy.
    """
    winner, loser = winner.float(), loser.float()
    if comparison == "standard":
        return 0.5 * (F.softplus(-winner).mean() + F.softplus(loser).mean())
    if comparison == "global":
        members = len(winner)
    winner = winner.reshape(len(winner) // members, -1)
    loser = loser.reshape(len(loser) // members, -1)
    against_loser = winner - loser.mean(1, keepdim=True)
    against_winner = loser - winner.mean(1, keepdim=True)
    return 0.5 * (F.softplus(-against_loser).mean() + F.softplus(against_winner).mean())


def kernel_density(teacher: Tensor, student: Tensor, members: int) -> Tensor:
    """Integrated squared error between the Parzen densities of teacher and student, per neighbourhood.

    For Gaussian estimates of bandwidth `h` it is, up to a constant factor,
    `mean K(t, t') + mean K(s, s') - 2 mean K(t, s)` with a Gaussian `K` of bandwidth `sqrt(2) h`, that is,
    the squared MMD. `h` is the median distance between the teacher's own samples of the neighbourhood.

    Args:
        teacher: Features `(B, F)` of the teacher's images, neighbourhood by neighbourhood.
        student: Features of the student's images of the same sources; gradients flow into them.
        members: Images per neighbourhood.

    Returns:
        The mean over neighbourhoods, at least 0; 0 where both sides are equal.

    Raises:
        UserError: A single image has no neighbourhood.
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
