"""The method: two pruning agents, one per side of the GAN, that learn from local density with feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lightning_gancompress.data.contract import GANDataModule, PlainData, data_of
from lightning_gancompress.density import (
    Comparison,
    CriticEncoder,
    Encoder,
    GeneratorEncoder,
    adversarial_density,
    cache_key,
    gather_features,
    kernel_density,
    load_table,
    nearest_neighbours,
    save_table,
)
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.pruning import PrunedSide
from lightning_gancompress.search.agents import PruningAgent, binarize, gumbel, relax
from lightning_gancompress.search.image_cache import ImageCache
from lightning_gancompress.search.policy import PruningPolicy
from lightning_gancompress.tasks import Images
from lightning_gancompress.tasks.role import Role

PEER = {"generator": "discriminator", "discriminator": "generator"}


class CollaborativePruning(PruningPolicy):
    """Searches the channels of generator and discriminator with two agents (arXiv 2312.14776).

    Before a batch each agent draws its mask, knowing what its peer kept last; the batch holds a few
    neighbourhoods of the teacher's samples; the losses compare student and teacher within them; after the
    batch the masks are written for the next.

    Args:
        search_epochs: Length of the search; in an epoch as many images are seen as the data set has.
        lr: AdamW's learning rate of both agents.
        budget_weight: Weight of the budget penalty.
        budget_ramp: Fraction of the search over which the budget falls from the whole network to its value;
            0 asks for it from the first step.
        feedback: Whether each agent sees what its peer kept.
        temperature: Of the relaxed masks.
        neighbours: Nearest others that make up a neighbourhood.
        members: Images drawn from a neighbourhood for a step; a batch holds `data.search_batch_size` images.
        adversarial_weight: Weight of the adversarial density objective.
        search_weights: Whether the weights stay the teacher's during the search (`frozen`), or follow the
            masks by the same losses (`trained`).
        weights_lr: Adam's learning rate of the weights where they are trained.
        comparison: What the critic compares an image with: its neighbourhood, the whole batch, or nothing.
        kernel_weight: Weight of the kernel density objective; None is 1 where no discriminator can judge,
            else 0.
        teacher_weight: Weight of the L1 distance to the teacher's images.
        task_weight: Weight of the task's own losses against the real targets.
        encoder: Feature space of the neighbourhoods; None is the teacher's discriminator, or without one
            its generator.
        cache_dir: Where neighbour tables are kept for reruns; None is `<default_root_dir>/cache`.
        teacher_cache_gb: Host memory per process for the teacher's images, in GB; what does not fit is
            computed each time.
    """

    def __init__(
        self,
        search_epochs: int = 40,
        lr: float = 1e-3,
        budget_weight: float = 20.0,
        budget_ramp: float = 0.6,
        feedback: bool = True,
        temperature: float = 0.4,
        neighbours: int = 5,
        members: int = 4,
        search_weights: Literal["frozen", "trained"] = "trained",
        weights_lr: float = 2e-4,
        adversarial_weight: float = 0.1,
        comparison: Comparison = "local",
        kernel_weight: float | None = None,
        teacher_weight: float = 10.0,
        task_weight: float = 0.0,
        encoder: Encoder | None = None,
        cache_dir: str | None = None,
        teacher_cache_gb: float = 4.0,
    ) -> None:
        if search_epochs < 1:
            raise UserError(f"search_epochs: {search_epochs} leaves nothing to search; choose at least 1.")
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
        self.feedback, self.temperature = feedback, temperature
        self.neighbours, self.members = neighbours, members
        self.adversarial_weight, self.comparison = adversarial_weight, comparison
        self.kernel_weight, self.teacher_weight, self.task_weight = kernel_weight, teacher_weight, task_weight
        self.search_weights, self.weights_lr = search_weights, weights_lr
        self.encoder = encoder
        self.cache_dir, self.teacher_cache_gb = cache_dir, teacher_cache_gb
        self._encoders: dict[str, Encoder] = {}  # in use, by generator
        self._images = ImageCache(0)

    # -- before the search -----------------------------------------------------------------------------

    def prepare(self, module: CompressionModule) -> None:
        """Make an agent per side, wired to its peer."""
        if not len(module.sides):
            raise UserError(
                "budget and discriminator_budget are both 1.0, which leaves nothing to search: lower one of "
                "them."
            )
        sizes = {role: side.groups.sizes for role, side in module.sides.items()}
        for role in sizes:
            module.agents[role] = PruningAgent(sizes[role], sizes.get(PEER[role]) if self.feedback else None)
            module.bundle(role).requires_grad_(self.search_weights == "trained")
        if not len(module.bundle("discriminator")):
            if not (self._kernel_weight(module) or self.teacher_weight or self.task_weight):
                raise UserError(
                    "adversarial_weight acts through a discriminator, and the teacher has none: raise "
                    "kernel_weight or teacher_weight."
                )
            rank_zero_info("The teacher has no discriminator: the search goes without adversarial objective.")

    def _kernel_weight(self, module: CompressionModule) -> float:
        if self.kernel_weight is None:
            return 0.0 if len(module.bundle("discriminator")) else 1.0
        return self.kernel_weight

    def make_optimizer(self, module: CompressionModule, name: str, network: nn.Module) -> Optimizer:
        """AdamW, as the paper's authors use for their agents; the weights, if they are trained, by Adam."""
        groups: list[dict[str, Any]] = [{"params": list(network.parameters())}]
        if self.search_weights == "trained":  # in one optimizer: under fp16 two would not share a scale
            weights = list(module.bundle(name).parameters())
            adam = {"lr": self.weights_lr, "betas": (module.beta1, 0.999), "weight_decay": 0.0}
            groups.append({"params": weights, **adam})
        return AdamW(groups, lr=self.lr)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the neighbourhoods, once per teacher and data set."""
        module = self._searching(pl_module)
        if module is None:
            return
        data = data_of(trainer)
        if isinstance(data, PlainData):
            raise data.refusal("can't be searched by neighbourhoods")
        self._images = ImageCache(self.teacher_cache_gb)
        self._encoders = {
            role: (self.encoder or default_encoder(module, role)).to(module.device)
            for role in module.task.compressed
        }
        data.search_by(self._neighbourhoods(trainer, module, data), self.members)

    def _neighbourhoods(
        self, trainer: Trainer, module: CompressionModule, data: GANDataModule
    ) -> dict[Role, Tensor]:
        folder = Path(self.cache_dir or Path(trainer.default_root_dir) / "cache")
        images = data.fingerprint()
        keys = {
            role: cache_key(role, module.teacher, encoder, type(encoder), self.neighbours, images)
            for role, encoder in self._encoders.items()
        }
        tables = {role: load_table(folder, key) for role, key in keys.items()}
        missing = [role for role, table in tables.items() if table is None]
        if missing:
            rank_zero_info("Finding the neighbourhoods of the teacher's samples ...")
            for role, features in self._features(trainer, module, data, missing).items():
                tables[role] = table = nearest_neighbours(features, self.neighbours)
                save_table(folder, keys[role], table)
        # every rank has looked itself, which takes no longer; but one may have found another machine's file
        return {
            Role(role): trainer.strategy.broadcast(table)
            for role, table in tables.items()
            if table is not None
        }

    @torch.no_grad()
    def _features(
        self, trainer: Trainer, module: CompressionModule, data: GANDataModule, roles: list[str]
    ) -> dict[str, Tensor]:
        found: dict[str, list[tuple[Tensor, Tensor]]] = {role: [] for role in roles}
        for cpu_batch in data.plain_train_loader():
            batch = trainer.strategy.batch_to_device(cpu_batch, module.device)
            with trainer.precision_plugin.forward_context():  # as in the steps, which use these images again
                images = self._teacher_images(module, batch)
            for role, view in module.task.views(batch).items():
                if role in found:
                    features = self._encoders[role](view["source"], images[role])
                    found[role].append((view["index"].cpu(), features))
        return {role: gather_features(batches) for role, batches in found.items()}

    # -- the search ------------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Each agent draws its mask, given the last mask of its peer."""
        module = self._searching(pl_module)
        if module is None:
            return
        drawn = {}
        for number, (role, side) in enumerate(module.sides.items()):
            noise = gumbel(side.groups.total, (module.step_seed(batch_idx), number))
            soft = relax(self._logits(module, role), noise, self.temperature)
            drawn[role] = binarize(soft, side.groups.sizes, side.min_channels)
        for role, mask in drawn.items():
            module.sides[role].masks.set(mask)

    def search_step(self, module: CompressionModule, batch: dict[str, Any], batch_idx: int) -> None:
        """Losses of both sides; each loss reaches only the agent of its own side."""
        epochs = module.current_epoch + batch_idx / module.trainer.num_training_batches
        progress = epochs / (self.search_epochs * self.budget_ramp) if self.budget_ramp else 1.0
        task, student = module.task, module.student
        if self.task_weight:
            batch = module.with_targets(batch)
        teacher_images = self._teacher_images(module, batch)
        student_images = task.generate(student, batch, task.compressed)
        logs: dict[str, Tensor] = {}
        if "discriminator" in module.sides:
            real = task.discriminate(student, batch, teacher_images)
            fake = task.discriminate(student, batch, {k: v.detach() for k, v in student_images.items()})
            side = module.sides["discriminator"]
            losses = [adversarial_density(real[k], fake[k], self.members, self.comparison) for k in real]
            critic = torch.stack(losses).mean()
            penalty = side.penalty(side.masks.live, progress)
            module.step("discriminator", critic + self.budget_weight * penalty)
            side.masks.freeze()  # the generator's loss must not reach this agent
            logs |= {"discriminator_density": critic, "discriminator_budget": penalty}
        if "generator" in module.sides:
            side = module.sides["generator"]
            critics = module.bundle("discriminator").requires_grad_(False)
            loss, terms = self._generator_loss(module, batch, teacher_images, student_images)
            penalty = side.penalty(side.masks.live, progress)
            module.step("generator", loss + self.budget_weight * penalty)
            critics.requires_grad_(self.search_weights == "trained")
            logs |= terms | {"generator_budget": penalty}
        module.log_dict({f"train/{name}": value.detach() for name, value in logs.items()})

    def _generator_loss(
        self, module: CompressionModule, batch: dict[str, Any], teacher_images: Images, images: Images
    ) -> tuple[Tensor, dict[str, Tensor]]:
        task, student = module.task, module.student
        terms: dict[str, tuple[float, Tensor]] = {}
        fake = task.discriminate(student, batch, images) if self.adversarial_weight else {}
        if fake:
            with torch.no_grad():
                real = task.discriminate(student, batch, teacher_images)
            losses = [adversarial_density(fake[k], real[k], self.members, self.comparison) for k in fake]
            terms["generator_density"] = self.adversarial_weight, torch.stack(losses).mean()
            if "discriminator" not in module.sides:  # it learns nothing, but who leads is of interest
                losses = [adversarial_density(real[k], fake[k], self.members, self.comparison) for k in fake]
                terms["discriminator_density"] = 0.0, torch.stack(losses).mean().detach()
        if kernel_weight := self._kernel_weight(module):
            distances = []
            for role, view in task.views(batch).items():
                if role in images:
                    ours = self._encoders[role](view["source"], images[role])
                    with torch.no_grad():
                        theirs = self._encoders[role](view["source"], teacher_images[role])
                    distances.append(kernel_density(theirs, ours, self.members))
            terms["generator_kernel"] = kernel_weight, torch.stack(distances).mean()
        if self.teacher_weight:
            terms["teacher_l1"] = self.teacher_weight, task.reconstruction(images, teacher_images)
        if self.task_weight:
            terms["task"] = self.task_weight, task.generator_loss(student, batch, images)[0]
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        return total, {name: value for name, (_, value) in terms.items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the masks, without their graph, and say what they cost."""
        module = self._searching(pl_module)
        if module is None:
            return
        for role, side in module.sides.items():
            side.masks.freeze()
            module.log(f"cost/{role}_macs", side.cost(side.masks.mask).float() / side.cost.full)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the agents mean: the channels drawn more often than not."""
        module = self._searching(pl_module)
        if module is None:
            return
        for role, mask in self._decided(module).items():
            module.sides[role].masks.set(mask)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the agents mean (see validation): MACs and the channels kept per group."""
        module = self._searching(pl_module)
        if module is None:
            return
        logs = {"search/feedback": float(self.feedback)}
        for role, mask in self._decided(module).items():
            side = module.sides[role]
            logs[f"search/{role}_macs"] = float(side.cost(mask)) / side.cost.full
            logs |= {f"mask/{name}": float(n) for name, n in side.groups.kept(mask).items()}
        module.log_dict(logs, sync_dist=True)

    # -- the end of the search -------------------------------------------------------------------------

    @torch.no_grad()
    def scores(self, module: CompressionModule, role: str) -> Tensor:
        """The agent's logits, without noise."""
        return self._logits(module, role)

    def choose(self, module: CompressionModule) -> dict[str, Tensor]:
        """Shift the logits until the budget is met; warn when they have to be shifted far."""
        for role, mask in self._decided(module).items():
            self._warn_unless_converged(module.sides[role], mask)
        self._images = ImageCache(0)  # fine-tuning has no use for them
        return super().choose(module)

    @staticmethod
    def _warn_unless_converged(side: PrunedSide, mask: Tensor) -> None:
        macs = float(side.cost(mask))
        ended = f"{side.name}: the search ended at {macs / 1e9:.4g} of {side.budget / 1e9:.4g} GMACs"
        if macs > 1.05 * side.budget:
            rank_zero_warn(
                f"{ended}. What the final cut drops was not chosen by the agent: search longer "
                "(search_epochs), or raise lr or budget_weight."
            )
        elif macs < 0.95 * side.budget:
            rank_zero_info(f"{ended}; the cut adds the channels that the agent ranks next.")

    # -- helpers ---------------------------------------------------------------------------------------

    def _searching(self, pl_module: LightningModule) -> CompressionModule | None:
        """The module, while this callback searches it: another may have the say."""
        if isinstance(pl_module, CompressionModule) and pl_module.policy is self:
            return pl_module if pl_module.phase == "search" else None
        return None

    @staticmethod
    def _logits(module: CompressionModule, role: str) -> Tensor:
        peer = module.sides[PEER[role]].masks.mask if PEER[role] in module.sides else None
        logits: Tensor = module.agents[role](peer)
        return logits

    @torch.no_grad()
    def _decided(self, module: CompressionModule) -> dict[str, Tensor]:
        """Masks of the channels drawn more often than not."""
        decided = {}
        for role, side in module.sides.items():
            soft = relax(self._logits(module, role), None, self.temperature)
            decided[role] = binarize(soft, side.groups.sizes, side.min_channels)
        return decided

    @torch.no_grad()
    def _teacher_images(self, module: CompressionModule, batch: dict[str, Any]) -> Images:
        images = {}
        for role, view in module.task.views(batch).items():
            if role not in module.task.compressed:
                continue
            image = self._images.get(view["path"])
            if image is None:
                # rounded as in the cache: a resumed run, whose cache is empty, must see the same
                image = module.teacher[role](view["source"]).half()
                self._images.put(view["path"], image)
            images[role] = image.to(view["source"], non_blocking=True)
        return images


def default_encoder(module: CompressionModule, role: str) -> Encoder:
    """The teacher's discriminator for a generator's images, or without one the generator itself."""
    discriminator = module.task.discriminator_of(role)
    if discriminator not in module.teacher:
        return GeneratorEncoder(module.teacher[role])

    def judge(source: Tensor, image: Tensor) -> object:
        return module.task.discriminate(module.teacher, {"source": source}, {role: image})

    return CriticEncoder(judge, module.teacher[discriminator])
