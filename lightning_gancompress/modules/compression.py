"""Compression: search for the channels that stay, then fine-tune the small networks, in one fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_gancompress.checkpoints.header import Header, Search, refuse_late
from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.metrics import L1, TEACHER
from lightning_gancompress.evaluation.quality import Quality
from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.lightning_internals import (
    epochs_in,
    lacks_end_of_epoch,
    set_max_epochs,
    trainer_of,
    wrap_again,
)
from lightning_gancompress.modules.base import ClipAlgorithm, GANModule
from lightning_gancompress.modules.borders import save_border
from lightning_gancompress.modules.compression_phases import CompressionPhases
from lightning_gancompress.modules.optimizers import fit_states
from lightning_gancompress.modules.same_run import (
    facts,
    require_same_run,
    warn_of_counting,
    warn_of_other_inputs,
)
from lightning_gancompress.modules.teacher_loader import Missing, TeacherLoader
from lightning_gancompress.networks import BatchNorm
from lightning_gancompress.options import (
    Amount,
    Count,
    CountOrNone,
    Positive,
    Rate,
    Share,
    TrialCount,
    checked,
)
from lightning_gancompress.pruning import Budget, Budgets, Convention, down_to, largest_first
from lightning_gancompress.search.phase import Pruning, SearchPhase, ignored_layers
from lightning_gancompress.search.policy import PruningPolicy, SearchPolicy
from lightning_gancompress.tasks import Role, Side, Task
from lightning_gancompress.training.narrowing import carry_over
from lightning_gancompress.training.phase import Position, Schedule
from lightning_gancompress.training.teacher_student import Partner, TeacherStudent

POINTS = 50  # of a search, evenly spaced, at which its policy is asked which channels are in reach


class CompressionModule(GANModule):
    """Compresses a teacher GAN to a student GAN of fewer channels: a search, then a fine-tuning.

    In the search phase the student is a masked copy of the teacher, and a policy (a callback) learns or
    computes which channels to keep. At the border, the end of the last search epoch, the kept channels
    become small dense networks, which then train with the task's own losses.

    Args:
        teacher: Generator file: a checkpoint of teacher training, or an upstream `latest_net_G.pth` (for
            CycleGAN `latest_net_G_A.pth`), whose other networks are found beside it; or one file per role,
            such as `generator` and `discriminator`, or `generator_AtoB`, `discriminator_AtoB`, and so on.
        generator: A network of your own that translates images in [-1, 1]; `teacher` names its state dict,
            or nothing when the network comes with its weights.
        discriminator: A network of your own; its state dict is given as `teacher.discriminator`.
        own_weights: Whether `generator` and `discriminator` come with their weights, without a file.
        batch_norm: Statistics of the generators' batch norms: `running` as in eval mode, `image` as in
            upstream's test (train mode at batch size 1).
        task: Networks and losses; None is Pix2Pix.
        missing: Networks without weights: `train` makes new ones for the fine-tuning, `leave_out` does
            without them and without the losses that need them.
        partner: CycleGAN's other generator, where only one direction is compressed: `trained` along with the
            small one, `frozen`, or `left_out` together with the cycle loss.
        budget: MACs of the small generators together: a fraction of the teacher's or a number such as `2.4G`.
            Of a list the search goes to the smallest, and keeps what the others need as it comes past them;
            `fit` then fine-tunes each in a folder `budget_<b>` and compares all.
        quality: Instead of a budget to meet, the worst figure to accept: `fit` looks for the smallest network
            that keeps it, in equal steps from the teacher down to `budget`, a fraction.
        quality_metric: Name of that figure, as validation or test have it: `l1`, `ssim`, `teacher_coverage`.
        quality_trials: Most networks that are fine-tuned to find it; each further one halves the steps.
        discriminator_budget: MACs of the discriminators, the same at each budget; 1.0 keeps them whole.
        macs: How MACs are counted: `exact`, or `literature` (transposed convolutions at output resolution).
        min_channels: Least number of channels in every group.
        channel_multiple: Widths of the small networks are multiples of this (8 suits many devices).
        student_weights: Whether the small networks start with the weights of the kept channels
            (`inherited`), or from scratch (`fresh`).
        ignored_layers: Layers that are not pruned, or modules that hold them, by name or pattern
            (`encoder.*`); those of discriminators with the role before it (`discriminator.model.0`).
        epochs: Fine-tuning epochs at the full learning rate.
        decay_epochs: Further epochs in which it falls linearly towards zero.
        lr: Adam's learning rate in fine-tuning.
        beta1: Adam's decay rate of the first moment.
        discriminator_every: Fine-tuning steps per step of the discriminators: 2 trains them in every second
            one.
        distill_weight: Weight of the L1 distance to the teacher's images in fine-tuning, beside the task's
            losses; short for a `distillation` of its `output` alone.
        distillation: Further losses of the fine-tuning between student and teacher.
        gradient_clip_val: Limit of the gradients in each step of each optimizer; None for none.
        gradient_clip_algorithm: Whether the limit is of the `norm` of all gradients of an optimizer, or of
            each `value`.
        accumulate_grad_batches: Batches whose gradients are averaged for a step of the optimizers; the last
            step of an epoch may take fewer.
    """

    @checked
    def __init__(
        self,
        teacher: str | dict[str, str] | None = None,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        own_weights: bool = False,
        batch_norm: BatchNorm = "running",
        task: Task | None = None,
        missing: Missing = "train",
        partner: Partner = "trained",
        budget: Budgets = 0.1,
        quality: Positive | None = None,
        quality_metric: str = f"{TEACHER}{L1}",
        quality_trials: TrialCount = 4,
        discriminator_budget: Budget = 0.5,
        macs: Convention = "exact",
        min_channels: Count = 1,
        channel_multiple: Count = 1,
        student_weights: Literal["inherited", "fresh"] = "inherited",
        ignored_layers: list[str] | None = None,
        epochs: CountOrNone = 100,
        decay_epochs: CountOrNone = 100,
        lr: Rate = 2e-4,
        beta1: Share = 0.5,
        discriminator_every: Count = 1,
        distill_weight: Amount = 0.0,
        distillation: Distillation | None = None,
        gradient_clip_val: Positive | None = None,
        gradient_clip_algorithm: ClipAlgorithm = "norm",
        accumulate_grad_batches: Count = 1,
    ) -> None:
        super().__init__(task, gradient_clip_val, gradient_clip_algorithm, accumulate_grad_batches)
        self.remember_arguments()
        schedule = Schedule(epochs, decay_epochs, lr, beta1)
        self.quality = None if quality is None else Quality(quality, quality_metric)
        several = budget if quality is None else down_to(budget, 2 ** (quality_trials - 1), "model.budget")
        *passes, smallest = largest_first(several, "model.budget")
        budgets = {Side.GENERATOR: smallest, Side.DISCRIMINATOR: discriminator_budget}
        layers = ignored_layers or []
        self.pruning = Pruning(budgets, macs, min_channels, channel_multiple, student_weights, layers, passes)
        self.distillation = one_distillation(distill_weight, distillation)
        arguments = {Side.GENERATOR: generator, Side.DISCRIMINATOR: discriminator}
        own = {s: (net, self.describe(s.value, net)) for s, net in arguments.items() if net is not None}
        loader = TeacherLoader(self.task, teacher, own, own_weights, batch_norm, partner, missing)
        self.networks = networks = TeacherStudent(self.task, partner)
        self.teacher, self.student, self.inputs = networks.teacher, networks.student, networks.inputs
        self.phases = CompressionPhases(
            networks, loader, self.pruning, schedule, self.distillation, self.pools, discriminator_every
        )
        self.policy: PruningPolicy | None = None
        self._finished_search: Search | None = None
        self._border: int | None = None  # once it is crossed
        self._passed: list[float | str] = []  # larger budgets that the search has kept

    def generators(self, role: Role) -> dict[str, nn.Module]:
        """The generators `teacher` and `student` of a role."""
        return {"teacher": self.teacher[role], "student": self.student[role]}

    # -- phases ----------------------------------------------------------------------------------------

    @property
    def border(self) -> int:
        """Epoch of the run in which the fine-tuning begins."""
        if self._border is not None:
            return self._border
        return self.shortened(self.policy.search_epochs if self.policy else 0)

    @property
    def total_epochs(self) -> int:
        """Epochs of search and fine-tuning."""
        return self.border + self.shortened(self.phases.schedule.length)

    def setup(self, stage: str) -> None:
        """Build the networks before the strategy wraps the module, unless a checkpoint will be loaded.

        Raises:
            UserError: `fit` has no policy, or another stage has neither a fitted nor a loaded compression.
        """
        if stage == "fit" and self.begun and not self.trainer.ckpt_path:
            self._begin_again()
        super().setup(stage)
        if self.begun and isinstance(self.phase, SearchPhase):  # of a fit before
            self.phase.seed = self.seed
        if stage == "fit" and self.policy is None:
            raise UserError(
                "trainer.callbacks: compression needs a pruning policy; add CollaborativePruning (or "
                "UniformWidth, L1Magnitude) to the callbacks."
            )
        if not self.trainer.ckpt_path and not self.begun:
            if stage != "fit":
                raise UserError(
                    f"ckpt_path: `{TrainerFn(stage).value}` needs a compression, and none has been fitted or "
                    "loaded: give its checkpoint, such as --ckpt_path last."
                )
            self.phases.build()
            for path, preprocessing in self.phases.loader.preprocessing().items():
                warn_of_other_inputs(preprocessing, self, path)
            self._begin_search()

    def _begin_again(self) -> None:
        """Begin a second fit of this object: with the fine-tuning, if the search is over.

        Raises:
            UserError: A search has begun with another policy.
        """
        if isinstance(self.phase, SearchPhase) and self.phase.policy is not self.policy:
            raise UserError(
                "ckpt_path: this module is in the midst of a search that another policy has begun: give the "
                "checkpoint of that run, or make a new CompressionModule."
            )
        if self.phase.name == "finetune" and self.trainer.current_epoch < self.border:
            self._border = self.phase.began = 0  # of a new trainer

    def _begin_search(self, state: dict[str, Tensor] | None = None) -> None:
        """Enter the search phase, a resumed one with the channels of its state dict.

        A policy without a search crosses the border at once.
        """
        assert self.policy is not None
        search = self.phases.search(self.policy, self.trainer, self.seed)
        if state is not None:
            search.narrow_as(state)
        self.enter(search)
        if self.policy.search_epochs == 0:
            self._cross_border(search)

    def on_train_epoch_end(self) -> None:
        """Cross the border after the last epoch of the search, before its checkpoint is written."""
        super().on_train_epoch_end()
        if isinstance(self.phase, SearchPhase) and self.current_epoch + 1 >= self.border:
            self._cross_border(self.phase)
            wrap_again(self.trainer, self)

    def keep_passed(self, at: Position) -> None:
        """Save what the run of a larger budget starts from, once target and masks have come down to it."""
        search = self.phase
        if not isinstance(search, SearchPhase) or not isinstance(self.policy, SearchPolicy):
            return
        for budget, macs in search.passes.items():
            # the first is the same on all ranks, which wait for each other only once it is true
            if budget in self._passed or self.policy.target(search, at) > macs:
                continue
            if self.trainer.strategy.broadcast(self._come_down(search, self.policy, macs)):
                self._keep(search, budget)

    @staticmethod
    def _come_down(search: SearchPhase, policy: SearchPolicy, macs: int) -> bool:
        """Whether what the policy means to keep of the generators has come down to some MACs."""
        mask = policy.decide(search)[Side.GENERATOR]
        return float(search.sides[Side.GENERATOR].cost(mask)) <= macs

    def _keep(self, search: SearchPhase, budget: float | str) -> None:
        save_border(self, search, budget)
        self._passed = [*self._passed, budget]

    def narrow(self, at: Position) -> None:
        """Cut the channels that the policy has no more in reach, at one of the points where it is asked."""
        search = self.phase
        if not isinstance(search, SearchPhase) or self.policy is None or not self._asks(at):
            return
        broadcast = self.trainer.strategy.broadcast
        reach = {side: broadcast(mask) for side, mask in self.policy.in_reach(search, at).items()}
        if keep := search.worth_cutting(reach):
            optimizers, left = self.trainer.optimizers, search.narrow(keep)
            self.place()
            wrap_again(self.trainer, self)
            for old, new in zip(optimizers, self.trainer.optimizers, strict=True):
                carry_over(old, new, left)
                fit_states(new)

    def _asks(self, at: Position) -> bool:
        """Whether the policy is asked before a step, where no gradients of a window are kept."""
        step = self._window.batches / at.batches
        done, before = (int(POINTS * epochs / self.border) for epochs in (at.epochs, at.epochs - step))
        return self._window.begins(at) and (done > before or at.epochs == 0)

    def _cross_border(self, search: SearchPhase) -> None:
        assert self.policy is not None
        broadcast = self.trainer.strategy.broadcast
        if isinstance(self.policy, SearchPolicy):  # else each budget has a run that is cut by itself
            for budget, macs in search.passes.items():
                if budget in self._passed:
                    continue
                if not self._come_down(search, self.policy, macs):
                    rank_zero_warn(
                        f"Budget {budget}: the search has not come down to it. What the cut drops was not "
                        "chosen by the agent: search longer (search_epochs), or raise lr or budget_weight."
                    )
                self._keep(search, budget)
        masks = {side: broadcast(mask) for side, mask in search.choose().items()}
        self.phases.cut(search, masks)
        self._begin_finetune(self._configured_search(), self.border)

    def _begin_finetune(self, finished: Search | None, border: int) -> None:
        self._finished_search, self._border = finished, border
        self.enter(self.phases.finetune(self.border))
        data_of(trainer_of(self)).end_search()

    # -- checkpoints -----------------------------------------------------------------------------------

    def _configured_search(self) -> Search | None:
        """The search as this run's options define it; None without a policy."""
        if self.policy is None:
            return None
        return self.pruning.search_of(self.policy)

    def header(self) -> Header:
        """The header of a checkpoint of the current state."""
        return Header(
            kind="compression",
            phase=self.phase.name,
            networks=self.networks.specs,
            partner=self.networks.partner,
            sides=self.phase.roles() if isinstance(self.phase, SearchPhase) else {},
            ignored_layers=ignored_layers(self.networks, self.pruning.ignored_layers),
            search=self._finished_search or self._configured_search(),
            began=self._border,
            passed=self._passed if self.phase.name == "search" else [],
            **facts(self),
        )

    def _border_of(self, header: Header) -> int:
        if header.began is not None:
            return header.began
        return self.border if header.search is None else header.search.epochs

    def _require_same_run(self, header: Header, checkpoint: dict[str, Any], path: Path) -> None:
        """Check that this run changes no option that can't act any more."""
        header.require_same_search(self.networks.partner, self._configured_search(), path)
        if header.phase == "search" and not header.at_border:
            _, done = epochs_in(checkpoint)
            if self.border <= done:
                raise _too_short(self.border, done, path)
        else:
            before, self._border = self.total_epochs, self._border_of(header)
            limit = self.trainer.max_epochs
            assert limit is not None  # set in `setup`, where the border was not known
            total = self.total_epochs
            set_max_epochs(self.trainer, total if limit == before else min(limit, total))
        ignored = ignored_layers(self.networks, self.pruning.ignored_layers)
        was = header.ignored_layers
        refuse_late([("model.ignored_layers", was[side], ignored[side]) for side in was], path)
        self.phases.loader.require_same_networks(header, checkpoint["state_dict"], path)
        require_same_run(self, header, checkpoint, path)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks and enter the phase of the checkpoint, before Lightning loads its weights.

        Raises:
            UserError: The checkpoint is of another kind or task, or contradicts the options of this run.
        """
        trainer, state = trainer_of(self), checkpoint["state_dict"]
        fitting = self.fitting
        path = Path(str(trainer.ckpt_path if trainer is not None else "the checkpoint"))
        remedy = "a teacher goes into model.teacher instead"
        header = self.header_of(checkpoint, "compression", path, remedy)
        self.inputs.recorded = dict(header.preprocessing)
        self.phases.restore("teacher", header, checkpoint, path)
        header.require_compressed(self.task.compressed, path, exactly=fitting)
        if fitting:
            self._require_same_run(header, checkpoint, path)
        if header.phase == "finetune" or (fitting and header.at_border):
            self.phases.restore("student", header, checkpoint, path)
            if header.at_border:
                self.phases.begin_at_border(self.seed, path)
            self._begin_finetune(header.search or self._configured_search(), self._border_of(header))
            if header.at_border:
                checkpoint["state_dict"] = self.state_dict()
        elif fitting:
            if lacks_end_of_epoch(checkpoint) and checkpoint["epoch"] + 1 >= self.border:
                raise UserError(
                    f"ckpt_path: {path} was saved between the last batch of the search and its end, which a "
                    "resumed run would leave out: resume from last.ckpt, or from an earlier checkpoint."
                )
            self._passed = header.passed
            self._begin_search(state)
            _go_on_without_prior(self.state_dict(), state)
        else:
            search = self.phases.masked([s for s in Side if f"sides.{s}.masks.mask" in state])
            search.narrow_as(state)
            self.enter(search)
        if fitting:
            warn_of_counting(self, header)
        else:  # evaluation uses neither agents nor the distillation's convolutions
            warn_of_other_inputs(header.preprocessing, self, path)
            unused = ("agents.",) if self.distillation is not None else ("agents.", "distillation.")
            for key in [key for key in state if key.startswith(unused)]:
                del state[key]
        super().on_load_checkpoint(checkpoint)


def _go_on_without_prior(new: Mapping[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Give agents that were saved before there was a `magnitude_prior` one of zeros."""
    for key, tensor in new.items():
        if key.startswith("agents.") and key.endswith(".prior"):
            saved.setdefault(key, torch.zeros_like(tensor))


def _too_short(search_epochs: int, done: int, path: Path) -> UserError:
    return UserError(
        f"trainer.callbacks.search_epochs: {search_epochs} comes too late, {path} has searched for {done}: "
        f"set it to {done + 1} or more, or begin anew."
    )


def one_distillation(weight: float, distillation: Distillation | None) -> Distillation | None:
    """The distillation of the options `distill_weight` and `distillation`; None if neither is given.

    Raises:
        UserError: Both are given.
    """
    if weight and distillation is not None:
        raise UserError(
            f"model.distill_weight: {weight} is short for a distillation, and there is one: set "
            "distillation.output instead."
        )
    return Distillation(weight) if weight else distillation
