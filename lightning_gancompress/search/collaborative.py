"""Collaborative pruning: one agent per side of the GAN, trained on local density, with mutual feedback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lightning_gancompress.data.contract import GANDataModule, PlainData, as_loops_give, data_of
from lightning_gancompress.data.ledger import Ledger
from lightning_gancompress.density import (
    Comparison,
    CriticEncoder,
    Encoder,
    GeneratorEncoder,
    adversarial_density,
    cache_folder,
    cache_key,
    is_neighbourhoods,
    kernel_density,
    load_table,
    nearest_neighbours,
    require_neighbours,
    save_table,
)
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import require_writable
from lightning_gancompress.options import Amount, Count, Fraction, Positive, Rate, checked
from lightning_gancompress.pruning import PrunedSide
from lightning_gancompress.search.agents import PruningAgent, binarize, gumbel, relax
from lightning_gancompress.search.baselines import relative_magnitudes, standardized
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.search.policy import SearchPolicy
from lightning_gancompress.search.teacher_images import TeacherImages
from lightning_gancompress.tasks import Images, Role, Side
from lightning_gancompress.training.phase import SEARCH, Bordered, Logs, Position
from lightning_gancompress.training.teacher_student import TeacherStudent

GENERATOR, DISCRIMINATOR = Side.GENERATOR, Side.DISCRIMINATOR


class CollaborativePruning(SearchPolicy):
    """Searches the channels of generator and discriminator with two agents (arXiv 2312.14776).

    In every step each agent draws a mask, given the last mask of the other agent. The batch holds a few
    neighbourhoods: images whose teacher images are close in a feature space. The losses compare the density
    of student and teacher images within them. `train/balance` in the log is how far the discriminator's
    logits of the teacher's images are above those of the student's: 0 if it can't tell them apart.

    Args:
        search_epochs: Epochs of the search; an epoch has as many images as the data set.
        lr: AdamW's learning rate of both agents.
        budget_weight: Weight of the budget penalty.
        budget_ramp: Fraction of the search over which the budget falls from the whole network to its value;
            0 applies the budget from the first step.
        slack: How many channels stay in reach as the budget falls; the others are cut for good, which makes
            the search cheaper. With the present budget as a fraction of the whole network's MACs, in reach
            are its power of 1 - slack: 0 keeps what the budget has room for, 1 keeps all to the end.
        feedback: Whether each agent gets the other agent's last mask.
        magnitude_prior: What a standard deviation of the teacher's filter magnitudes adds to a channel's
            logit, up to two of them: channels with small weights are the first that the agents try to drop.
        temperature: Temperature of the relaxed masks.
        neighbours: Nearest neighbours per neighbourhood, besides the image itself.
        members: Images drawn from a neighbourhood for a step; a batch holds `data.search_batch_size` images.
        adversarial_weight: Weight of the adversarial density objective.
        search_weights: Whether the weights stay the teacher's during the search (`frozen`), or are trained
            by the same losses (`trained`).
        weights_lr: Adam's learning rate of the weights where they are trained.
        comparison: What a logit is compared with: its neighbourhood, the whole batch, or nothing.
        kernel_weight: Weight of the kernel density objective; None is 0 with a discriminator and 1 without.
        teacher_weight: Weight of the L1 distance to the teacher's images.
        task_weight: Weight of the task's own losses against the real targets.
        encoder: Feature space of the neighbourhoods; None is the teacher's discriminator, or without one
            its generator.
        cache_dir: Folder of neighbour tables for later runs; None is `<default_root_dir>/cache`.
        teacher_cache_gb: Host memory per process for the teacher's images, in GB (1e9 bytes); images beyond
            it are computed in every step.
    """

    not_settled = ("search_epochs", "cache_dir", "teacher_cache_gb")

    @checked
    def __init__(
        self,
        search_epochs: Count = 40,
        lr: Rate = 1e-3,
        budget_weight: Amount = 20.0,
        budget_ramp: Fraction = 0.6,
        slack: Fraction = 1.0,
        feedback: bool = True,
        magnitude_prior: Amount = 2.0,
        temperature: Positive = 0.4,
        neighbours: Count = 5,
        members: Count = 4,
        search_weights: Literal["frozen", "trained"] = "trained",
        weights_lr: Rate = 2e-4,
        adversarial_weight: Amount = 0.1,
        comparison: Comparison = "local",
        kernel_weight: Amount | None = None,
        teacher_weight: Amount = 10.0,
        task_weight: Amount = 0.0,
        encoder: Encoder | None = None,
        cache_dir: str | None = None,
        teacher_cache_gb: Amount = 4.0,
    ) -> None:
        if members > neighbours + 1:
            raise UserError(
                f"members: {members} images can't be drawn from a neighbourhood of {neighbours + 1}: choose "
                "at most neighbours + 1."
            )
        if not any((adversarial_weight, kernel_weight, teacher_weight, task_weight)):
            raise UserError(
                "adversarial_weight, kernel_weight, teacher_weight and task_weight are all 0, so the "
                "generator's agent would see nothing but its budget: raise one of them."
            )
        self.search_epochs = search_epochs
        self.lr = lr
        self.budget_weight, self.budget_ramp = budget_weight, budget_ramp
        self.slack = slack
        self.feedback, self.magnitude_prior, self.temperature = feedback, magnitude_prior, temperature
        self.neighbours, self.members = neighbours, members
        self.adversarial_weight, self.comparison = adversarial_weight, comparison
        self.kernel_weight, self.teacher_weight, self.task_weight = kernel_weight, teacher_weight, task_weight
        self.search_weights, self.weights_lr = search_weights, weights_lr
        self.encoder = encoder
        self.cache_dir, self.teacher_cache_gb = cache_dir, teacher_cache_gb
        self._encoders: dict[Role, Encoder] = {}  # in use, by generator
        self._images = TeacherImages(0)

    # -- agents ----------------------------------------------------------------------------------------

    def agents(self, search: SearchPhase) -> Mapping[Side, nn.Module]:
        """One agent per pruned side; with feedback its input is the other side's mask.

        Raises:
            UserError: No side is pruned, or no objective acts on the generator.
        """
        sizes = {side: pruned.groups.sizes for side, pruned in search.pruned()}
        if not sizes:
            raise UserError(
                "budget and discriminator_budget are both 1.0, which leaves nothing to search: lower one of "
                "them."
            )
        for side in sizes:
            search.networks.group(side).requires_grad_(self._trains_weights)
        if not len(search.networks.group(DISCRIMINATOR)):
            if not (self._kernel_weight(search) or self.teacher_weight or self.task_weight):
                raise UserError(
                    "adversarial_weight acts through a discriminator, and the teacher has none: raise "
                    "kernel_weight or teacher_weight."
                )
            rank_zero_info("The teacher has no discriminator: the search goes without adversarial objective.")
        return {
            side: PruningAgent(
                own,
                sizes.get(side.peer) if self.feedback else None,
                self.magnitude_prior * standardized(relative_magnitudes(search, side)),
            )
            for side, own in sizes.items()
        }

    def optimizer(self, search: SearchPhase, side: Side) -> Optimizer:
        """AdamW for the agent, as the paper's authors have it, and for trained weights as plain Adam."""
        groups: list[dict[str, Any]] = [{"params": list(search.agents[side].parameters())}]
        if self._trains_weights:  # in one optimizer: under fp16 the scale may change between two steps
            weights = list(search.networks.group(side).parameters())
            adam = {"lr": self.weights_lr, "betas": (search.beta1, 0.999), "weight_decay": 0.0}
            groups.append({"params": weights, **adam})
        return AdamW(groups, lr=self.lr)

    @property
    def _trains_weights(self) -> bool:
        return self.search_weights == "trained"

    def _kernel_weight(self, search: SearchPhase) -> float:
        if self.kernel_weight is None:
            return 0.0 if len(search.networks.group(DISCRIMINATOR)) else 1.0
        return self.kernel_weight

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free the memory after the search: fine-tuning does not use the teacher's images."""
        if self.searching(pl_module) is None:
            self._images = TeacherImages(0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Also log whether there was feedback, as 0 or 1, and say how far the search has come at its end."""
        super().on_train_epoch_end(trainer, pl_module)
        search = self.searching(pl_module)
        if search is None:
            return
        pl_module.log(f"{SEARCH}feedback", float(self.feedback), sync_dist=True)
        if isinstance(pl_module, Bordered) and trainer.current_epoch + 1 >= pl_module.border:
            for side, mask in self.decide(search).items():
                _warn_unless_converged(search.sides[side], mask)

    # -- neighbourhoods --------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the neighbourhoods, or load them from the cache, and have the data sampled by them.

        Raises:
            UserError: The data module is not a GANDataModule.
        """
        search = self.searching(pl_module)
        if search is None:
            return
        data = data_of(trainer)
        if isinstance(data, PlainData):
            raise data.refusal("can't be searched by neighbourhoods")
        self._check_neighbourhoods(trainer, search.networks, data)
        networks = search.networks
        self._images = TeacherImages(self.teacher_cache_gb)
        self._encoders = {
            role: (self.encoder or default_encoder(networks, role)).to(pl_module.device)
            for role in networks.task.compressed
        }
        data.search_by(self._neighbourhoods(trainer, networks, data), self.members)

    def _check_neighbourhoods(self, trainer: Trainer, networks: TeacherStudent, data: GANDataModule) -> None:
        """Check what would fail only once the teacher has translated all images."""
        datasets = data.datasets("train")
        for role in networks.task.compressed:
            require_neighbours(len(datasets[role]), self.neighbours)
        data.check_search(self.members)
        if trainer.is_global_zero:
            folder = cache_folder(self.cache_dir, trainer)
            require_writable(folder, "cache_dir of CollaborativePruning")

    def _neighbourhoods(
        self, trainer: Trainer, networks: TeacherStudent, data: GANDataModule
    ) -> dict[Role, Tensor]:
        folder = cache_folder(self.cache_dir, trainer)
        images = data.fingerprint()
        keys = {
            role: cache_key(str(role), networks.teacher, encoder, type(encoder), self.neighbours, images)
            for role, encoder in self._encoders.items()
        }
        tables: dict[Role, Tensor | None] = {}
        for role, dataset in data.datasets("train").items():
            if role in keys:
                fits = partial(is_neighbourhoods, count=len(dataset), k=self.neighbours)
                # that of rank 0: on another machine there may be none
                tables[role] = trainer.strategy.broadcast(load_table(folder, keys[role], fits))
        missing = [role for role, table in tables.items() if table is None]
        if missing:
            rank_zero_info("Finding the neighbourhoods of the teacher's samples ...")
            for role, features in self._features(trainer, networks, data, missing).items():
                tables[role] = table = nearest_neighbours(features, self.neighbours)
                if trainer.is_global_zero:
                    save_table(folder, keys[role], table)
        # all ranks compute the same in the same time; where their devices round otherwise, all take rank 0's
        return {
            role: trainer.strategy.broadcast(table) for role, table in tables.items() if table is not None
        }

    @torch.no_grad()
    def _features(
        self, trainer: Trainer, networks: TeacherStudent, data: GANDataModule, roles: list[Role]
    ) -> dict[Role, Tensor]:
        """Features `(N, F)` of the teacher's images of the training split, in its order, by generator.

        Each rank computes them for its share of the images.
        """
        device = trainer.strategy.root_device
        ledger = Ledger[str](device, trainer.global_rank, trainer.world_size)
        for cpu_batch in data.plain_train_loader():
            batch = as_loops_give(trainer, cpu_batch)
            with trainer.precision_plugin.forward_context():  # as in the steps, which reuse these images
                images = self._images.of(networks, batch)
            for role, view in networks.task.views(batch).items():
                if role in roles:
                    features = self._encoders[role](view["source"], images[role])
                    ledger.add(role, view["index"], len(features), {"features": features})
        return {role: ledger.gather(role)[1]["features"].to(device) for role in roles}

    # -- a step ----------------------------------------------------------------------------------------

    def draw(self, search: SearchPhase, at: Position) -> dict[Side, Tensor]:
        """Draw a mask `(total,)` per side from its agent, given the last mask of the other side."""
        drawn = {}
        for number, (side, pruned) in enumerate(search.pruned()):
            noise = gumbel(pruned.groups.total, (at.seed, number))
            soft = relax(self._logits(search, side), noise, self.temperature)
            drawn[side] = binarize(soft, pruned.groups.sizes, pruned.min_channels)
        return drawn

    def losses(
        self, search: SearchPhase, batch: dict[str, Any], at: Position
    ) -> Iterator[tuple[Side, Tensor, Logs]]:
        """Yield the discriminator's loss, then the generator's, each with the penalty of its budget."""
        networks = search.networks
        progress = self._progress(at)
        teacher_images = self._images.of(networks, batch)
        if self.task_weight:
            batch = networks.with_targets(batch, teacher_images)
        student_images = networks.task.generate(networks.student, batch, networks.task.compressed)
        real: Images = {}
        if DISCRIMINATOR in search.sides:
            detached = {role: image.detach() for role, image in student_images.items()}
            real, fake = networks.task.discriminate_both(networks.student, batch, teacher_images, detached)
            loss = self._density(real, fake)
            penalty = self._penalty(search, DISCRIMINATOR, progress)
            logs = {"discriminator_density": loss, "discriminator_budget": penalty}
            logs["balance"] = _balance(real, fake)
            yield DISCRIMINATOR, loss + self.budget_weight * penalty, logs
            # weights that are trained have changed: their logits have to be computed anew
            real = {} if self._trains_weights else {role: x.detach() for role, x in real.items()}
        if GENERATOR in search.sides:
            with search.frozen_weights(DISCRIMINATOR, trained=self._trains_weights):
                loss, logs = self._generator_loss(search, batch, teacher_images, student_images, real)
                penalty = self._penalty(search, GENERATOR, progress)
                yield GENERATOR, loss + self.budget_weight * penalty, logs | {"generator_budget": penalty}

    def _progress(self, at: Position) -> float:
        """Position in the fall of the budget: at 0 all is kept, from 1 on the budget."""
        return at.epochs / (self.search_epochs * self.budget_ramp) if self.budget_ramp else 1.0

    @staticmethod
    def _penalty(search: SearchPhase, side: Side, progress: float) -> Tensor:
        pruned = search.sides[side]
        return pruned.penalty(pruned.masks.live, progress)

    def _density(self, logits: Images, others: Images) -> Tensor:
        losses = [adversarial_density(logits[k], others[k], self.members, self.comparison) for k in logits]
        return torch.stack(losses).mean()

    def _generator_loss(
        self,
        search: SearchPhase,
        batch: dict[str, Any],
        teacher_images: Images,
        images: Images,
        real: Images,
    ) -> tuple[Tensor, Logs]:
        """Loss and terms; `real` are the discriminators' logits on the teacher's images, if known."""
        task, student = search.networks.task, search.networks.student
        terms: dict[str, tuple[float, Tensor]] = {}
        fake = task.discriminate(student, batch, images) if self.adversarial_weight else {}
        if fake:
            if not real:
                with torch.no_grad():
                    real = task.discriminate(student, batch, teacher_images)
            terms["generator_density"] = self.adversarial_weight, self._density(fake, real)
            if DISCRIMINATOR not in search.sides:  # not trained: logged only
                terms["discriminator_density"] = 0.0, self._density(real, fake).detach()
                terms["balance"] = 0.0, _balance(real, fake)
        if kernel_weight := self._kernel_weight(search):
            terms["generator_kernel"] = kernel_weight, self._kernel(search, batch, teacher_images, images)
        if self.teacher_weight:
            terms["teacher_l1"] = self.teacher_weight, task.reconstruction(images, teacher_images)
        if self.task_weight:
            terms["task"] = self.task_weight, task.generator_loss(student, batch, images)[0]
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        return total, {name: value for name, (_, value) in terms.items()}

    def _kernel(
        self, search: SearchPhase, batch: dict[str, Any], teacher_images: Images, images: Images
    ) -> Tensor:
        """Kernel density objective between encoded images of teacher and student, mean over generators."""
        distances = []
        for role, view in search.networks.task.views(batch).items():
            if role in images:
                student = self._encoders[role](view["source"], images[role])
                with torch.no_grad():
                    teacher = self._encoders[role](view["source"], teacher_images[role])
                distances.append(kernel_density(teacher, student, self.members))
        return torch.stack(distances).mean()

    # -- fewer channels on the way ---------------------------------------------------------------------

    def target(self, search: SearchPhase, at: Position) -> float:
        """What the budget penalty pulls the generators' masks to."""
        return search.sides[GENERATOR].target(self._progress(at))

    @torch.no_grad()
    def in_reach(self, search: SearchPhase, at: Position) -> Mapping[Side, Tensor]:
        """The channels with the highest logits, more of them than the present budget has room for."""
        if self.slack == 1:
            return {}
        progress, decided = self._progress(at), self.decide(search)
        return {
            side: pruned.in_reach(self._logits(search, side), decided[side], progress, self.slack)
            for side, pruned in search.pruned()
        }

    def narrowed(self, agent: nn.Module, keep: Mapping[Side, Tensor], side: Side) -> nn.Module:
        """The agent without the logits, and without the feedback, of channels that are cut."""
        assert isinstance(agent, PruningAgent)
        return agent.narrowed(keep[side], keep.get(side.peer))

    # -- masks and scores ------------------------------------------------------------------------------

    @staticmethod
    def _logits(search: SearchPhase, side: Side) -> Tensor:
        peer = search.sides[side.peer].masks.mask if side.peer in search.sides else None
        logits: Tensor = search.agents[side](peer)
        return logits

    @torch.no_grad()
    def decide(self, search: SearchPhase) -> dict[Side, Tensor]:
        """Masks `(total,)` of the channels that are drawn with a probability above 1/2."""
        decided = {}
        for side, pruned in search.pruned():
            soft = relax(self._logits(search, side), None, self.temperature)
            decided[side] = binarize(soft, pruned.groups.sizes, pruned.min_channels)
        return decided

    @torch.no_grad()
    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """The agent's logits `(total,)`, without noise."""
        return self._logits(search, side)


def _balance(real: Images, fake: Images) -> Tensor:
    """How far logits of the teacher's images are above those of the student's, without gradients."""
    return torch.stack([(real[k] - fake[k]).detach().float().mean() for k in real]).mean()


def _warn_unless_converged(pruned: PrunedSide, mask: Tensor) -> None:
    macs = float(pruned.cost(mask))
    ended = f"{pruned.name}: the search ended at {macs / 1e9:.4g} of {pruned.budget / 1e9:.4g} GMACs"
    if macs > 1.05 * pruned.budget:
        rank_zero_warn(
            f"{ended}. What the final cut drops was not chosen by the agent: search longer "
            "(search_epochs), or raise lr or budget_weight."
        )
    elif macs < 0.95 * pruned.budget:
        rank_zero_info(f"{ended}; the cut adds the channels that the agent ranks next.")


def default_encoder(networks: TeacherStudent, role: Role) -> Encoder:
    """Features of the teacher's discriminator for a generator's images, or without one of the generator."""
    if role.discriminator not in networks.teacher:
        return GeneratorEncoder(networks.teacher[role])

    def discriminate(source: Tensor, image: Tensor) -> object:
        return networks.task.discriminate(networks.teacher, {"source": source}, {role: image})

    return CriticEncoder(discriminate, networks.teacher[role.discriminator])
