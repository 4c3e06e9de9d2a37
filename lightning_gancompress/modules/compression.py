"""Compression: search for the channels that stay, then fine-tune the small networks, in one fit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import ItemsView, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.modules.base import CHECKPOINT_KEY, GANModule
from lightning_gancompress.modules.check_networks import check_networks, check_training
from lightning_gancompress.modules.teacher import by_kind
from lightning_gancompress.modules.teacher_loader import Made, Missing, Partner, TeacherLoader
from lightning_gancompress.networks import (
    BatchNorm,
    NetworkSpec,
    channel_widths,
    copy_network,
    renew,
)
from lightning_gancompress.pruning import Convention, NetworkGroup, PrunedSide, count_macs
from lightning_gancompress.tasks import Images, Losses, Task
from lightning_gancompress.training.gan_update import gan_update, linear_decay


class Sides(nn.ModuleDict):
    """What is being pruned, by role."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> PrunedSide: ...
        def items(self) -> ItemsView[str, PrunedSide]: ...  # noqa: D102


class Policy(Protocol):
    """What the module needs of the callback that chooses channels."""

    search_epochs: int

    def prepare(self, module: CompressionModule) -> None:
        """Make what the search needs."""

    def make_optimizer(self, module: CompressionModule, name: str, network: nn.Module) -> Optimizer:
        """The optimizer of an agent."""

    def search_step(self, module: CompressionModule, batch: dict[str, Any], batch_idx: int) -> None:
        """One step of the search."""

    def choose(self, module: CompressionModule) -> dict[str, Tensor]:
        """The final mask per side, within the budgets."""


class CompressionModule(GANModule):
    """Wraps the teacher GAN and the student GAN that is cut out of it.

    In the search phase the student is the teacher's copy under masks, and a policy (a callback) learns or
    computes which channels stay. At the border the kept channels become small dense
    networks, which then train with the task's own losses.

    Args:
        teacher: Generator file: a checkpoint of teacher training, or an upstream `latest_net_G.pth` (for
            CycleGAN `latest_net_G_A.pth`), whose other networks are found beside it; or one file per role,
            such as `generator` and `discriminator`, or `generator_AtoB`, `discriminator_AtoB`, and so on.
        generator: A network of your own that translates images in [-1, 1]; `teacher` names its state dict,
            or nothing when the network comes with its weights.
        discriminator: A network of your own; its state dict is given as `teacher.discriminator`.
        batch_norm: How the generators' batch norms read their statistics: `running` as in eval mode, `image`
            as upstream's test does (its train mode at batch size 1).
        task: Networks and losses; None is Pix2Pix.
        missing: What becomes of networks without weights: `train` makes them afresh for the fine-tuning,
            `leave_out` goes without them and without the losses that need them.
        partner: What becomes of CycleGAN's other generator, where only one direction is compressed: `trained`
            along with the small one, `frozen`, or `left_out` with the cycle.
        budget: MACs of the small generators together: a fraction of the teacher's or a number such as `2.4G`.
        discriminator_budget: Likewise for the discriminators; 1.0 keeps them whole.
        macs: How MACs are counted: `exact`, or `literature` (transposed convolutions at output resolution).
        min_channels: Channels that stay in every group.
        channel_multiple: Widths of the small networks are multiples of this (8 suits many devices).
        student_weights: Whether the small networks start with the weights of the channels that stay
            (`inherited`), or from scratch (`fresh`).
        ignored_layers: Layers that stay whole, or modules that hold them, by name or pattern (`encoder.*`);
            those of discriminators with the network's name before it (`discriminator.model.0`).
        epochs: Fine-tuning epochs at the full learning rate.
        decay_epochs: Further epochs in which it falls linearly towards zero.
        lr: Adam's learning rate in fine-tuning.
        beta1: Adam's first momentum.
        distill_weight: Weight of the L1 distance to the teacher's images in fine-tuning, beside the task's
            losses; short for a `distillation` of its `output` alone.
        distillation: Further terms of the fine-tuning that compare student and teacher.
    """

    def __init__(
        self,
        teacher: str | dict[str, str] | None = None,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        batch_norm: BatchNorm = "running",
        task: Task | None = None,
        missing: Missing = "train",
        partner: Partner = "trained",
        budget: float | str = 0.1,
        discriminator_budget: float | str = 0.5,
        macs: Convention = "exact",
        min_channels: int = 1,
        channel_multiple: int = 1,
        student_weights: Literal["inherited", "fresh"] = "inherited",
        ignored_layers: list[str] | None = None,
        epochs: int = 100,
        decay_epochs: int = 100,
        lr: float = 2e-4,
        beta1: float = 0.5,
        distill_weight: float = 0.0,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__(task, lr, beta1)
        self.remember_arguments()
        given = {"generator": generator, "discriminator": discriminator}
        made = {kind: (net, self.describe(kind, net)) for kind, net in given.items() if net is not None}
        first = self.task.compressed[0]
        roles = {"generator": first, "discriminator": self.task.discriminator_of(first)}
        self.cast = TeacherLoader(
            self.task,
            teacher,
            {kind: network for kind, network in made.items() if self.hparams.get(kind)},
            {roles[kind]: network for kind, network in made.items() if not self.hparams.get(kind)},
            batch_norm,
            partner,
            missing,
        )
        self.budgets = {"generator": budget, "discriminator": discriminator_budget}
        self.convention = macs
        self.min_channels, self.channel_multiple = min_channels, channel_multiple
        self.student_weights = student_weights
        self.ignored_layers = ignored_layers or []
        self.epochs, self.decay_epochs = epochs, decay_epochs
        if distill_weight and distillation is not None:
            raise UserError(
                f"model.distill_weight: {distill_weight} is short for a distillation, and there is one: set "
                "distillation.output instead."
            )
        self.distillation = Distillation(distill_weight) if distill_weight else distillation
        self.phase = "search"
        self.policy: Policy | None = None
        self.teacher, self.student = nn.ModuleDict(), nn.ModuleDict()
        self.sides, self.agents = Sides(), nn.ModuleDict()

    # -- networks --------------------------------------------------------------------------------------

    def build(self) -> None:
        """Load the teacher from its files and make the student from it, unless they are here."""
        if len(self.teacher):
            return
        for role, (network, spec) in self.cast.load().items():
            self._adopt_teacher(role, network, spec)
        alone = len(self.task.generators) > 1 and not self._partners_play()
        if alone and self.distillation is None:
            raise UserError(
                "model.distill_weight: 0 leaves nothing that ties a translation to its source, since the "
                "other generator, and with it the cycle, is left out: set it to 10, say."
            )

    def _partners_play(self) -> bool:
        asked = set(self.task.generators) & set(self.cast.roles())
        return len(asked) > 1 and (asked <= set(self.teacher) or self.cast.missing == "train")

    def _adopt_teacher(self, role: str, network: nn.Module, spec: NetworkSpec) -> None:
        self.teacher[role] = network.eval().requires_grad_(False)
        self.student[role] = copy_network(network)
        self.specs[f"teacher.{role}"] = self.specs[f"student.{role}"] = spec

    def bundle(self, side: str) -> NetworkGroup:
        """The student's networks that are compressed together."""
        wanted = self.task.compressed
        roles = wanted if side == "generator" else [self.task.discriminator_of(role) for role in wanted]
        return NetworkGroup({role: self.student[role] for role in roles if role in self.teacher})

    def _mask_student(self, budgets: Mapping[str, float | str]) -> None:
        """Put the student under masks, as far as `budgets` name its sides."""
        self.sides, self.agents = Sides(), nn.ModuleDict()
        for name, budget in budgets.items():
            bundle = self.bundle(name)
            if len(bundle):
                self.sides[name] = PrunedSide(
                    name,
                    bundle,
                    self._samples(bundle),
                    budget,
                    self.convention,
                    self.min_channels,
                    self.channel_multiple,
                    self._ignored()[name],
                )

    def _ignored(self) -> dict[str, list[str]]:
        """The ignored layers of each side; a name without its network's is of the generators.

        Raises:
            UserError: There is no such layer on either side.
        """
        generators, discriminators = self.bundle("generator"), self.bundle("discriminator")
        own = [p for p in self.ignored_layers if p.startswith("discriminator") and discriminators.has(p)]
        for pattern in self.ignored_layers:
            if pattern not in own and not generators.qualified([pattern]):
                roles = " and ".join([*generators, *discriminators])
                raise UserError(f"model.ignored_layers: {roles} have no layer named {pattern!r}.")
        return {"generator": generators.qualified(self.ignored_layers), "discriminator": own}

    def _samples(self, bundle: NetworkGroup) -> list[Tensor]:
        """Blank inputs like those of the data: MACs are counted for them."""
        judged = {self.task.discriminator_of(role): role for role in self.task.compressed}
        return [
            self.inputs.judged(judged[role], self.teacher[judged[role]])
            if role in judged
            else self.inputs.source(role, network)
            for role, network in bundle.items()
        ]

    def _sources(self) -> Images:
        """What each wanted generator reads, blank."""
        return {role: self.inputs.source(role, self.teacher[role]) for role in self.task.compressed}

    def _ask_data(self) -> None:
        """Prefer what the data says of its images to what a checkpoint recorded."""
        self.inputs.recorded |= data_of(self._trainer).preprocessing

    def generators(self, role: str) -> dict[str, nn.Module]:
        """Teacher and student."""
        return {"teacher": self.teacher[role], "student": self.student[role]}

    def trained_networks(self) -> dict[str, nn.Module]:
        """The agents while searching, then the small networks."""
        return dict(self.agents.items()) if self.phase == "search" else by_kind(self.task, self.student)

    def averaging_networks(self) -> list[nn.Module]:
        """Those of the student: its batch norms follow the masks, but for what is frozen."""
        frozen = self._frozen()
        return [network for role, network in self.student.items() if role not in frozen]

    def make_optimizer(self, name: str, network: nn.Module) -> Optimizer:
        """The policy's optimizer while searching, then the task's Adam."""
        if self.phase == "search":
            assert self.policy is not None
            return self.policy.make_optimizer(self, name, network)
        if self.distillation is not None and name == "generator":
            network = nn.ModuleList([network, self.distillation.adapters])
        return super().make_optimizer(name, network)

    # -- phases ----------------------------------------------------------------------------------------

    @property
    def search_epochs(self) -> int:
        """Epochs before the border."""
        return self.policy.search_epochs if self.policy else 0

    @property
    def total_epochs(self) -> int:
        """Search and fine-tune."""
        return self.search_epochs + self.epochs + self.decay_epochs

    def lr_factor(self, epoch: int) -> float:
        """Constant while searching; in fine-tuning constant, then linear to zero."""
        if self.phase == "search":
            return 1.0
        return linear_decay(epoch - self.search_epochs, self.epochs, self.decay_epochs)

    def setup(self, stage: str) -> None:
        """Build the networks, unless `on_load_checkpoint` will, before the strategy wraps the module."""
        if stage == "fit" and self.policy is None:
            raise UserError(
                "trainer.callbacks: compression needs a pruning policy; add CollaborativePruning (or "
                "UniformWidth, L1Magnitude) to the callbacks."
            )
        if not self.trainer.ckpt_path:
            self.build()
            if stage == "fit" and self.phase == "search":
                self._begin_search()
        super().setup(stage)

    def _begin_search(self) -> None:
        """Masks and agents; a policy that needs no search cuts at once."""
        assert self.policy is not None
        self._ask_data()
        batch = data_of(self.trainer).first_batch()
        if batch is not None:
            self.inputs.see(batch)
            check_networks(self.task, self.teacher, batch)
        missing = self._make_missing()  # what can't be made is refused now
        for role, made in missing.items():
            fate = "trained afresh in the fine-tuning" if made else "left out, with the losses that need it"
            rank_zero_info(f"{role}: no weights were found; {fate}.")
        if batch is not None:
            self._try_training(missing, batch)
        if self.distillation is not None:
            self.distillation.check(self.task, self.teacher, self.student, self._sources())
        self._mask_student({name: b for name, b in self.budgets.items() if b not in (1, "1", "1.0")})
        for _, side in self.sides.items():
            rank_zero_info(side.summary())
        self.policy.prepare(self)
        if self.search_epochs == 0:
            self.cut()

    def _try_training(self, missing: Mapping[str, Made | None], batch: dict[str, Any]) -> None:
        """What only training would meet is told before the search."""
        frozen = self._frozen()
        trained = {role: network for role, network in self.student.items() if role not in frozen}
        trained |= {role: made[0] for role, made in missing.items() if made is not None}
        data = data_of(self.trainer)
        sizes = {"batch_size": data.batch_size}
        if self.search_epochs:
            sizes["search_batch_size"] = data.search_batch_size
        name = min(sizes, key=sizes.__getitem__)
        layer_sync = getattr(self.trainer.strategy, "_layer_sync", None)
        devices = self.trainer.world_size if layer_sync else 1  # of a batch norm
        check_training(self.task, nn.ModuleDict(trained), batch, name, sizes[name] * devices)

    def on_fit_start(self) -> None:
        """Put every network into the mode of its phase."""
        self._set_modes()

    def _set_modes(self) -> None:
        self.teacher.eval()
        self.student.train(self.phase == "finetune")
        for role in self._frozen():
            self.student[role].eval()
        if self.phase == "search":
            # Dropped channels shift what a norm sees. With the teacher's statistics the search would judge a
            # broken network: on facades the L1 to the teacher at the cut was 0.285, and 0.242 with those of
            # the batch (U-Net ngf 32, a tenth of the MACs, 400 steps, statistics estimated anew for both).
            for layer in self.student.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.train()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """A step of the search, or a GAN update of the small networks."""
        if self.phase == "search":
            assert self.policy is not None
            self.policy.search_step(self, batch, batch_idx)
        else:
            self._finetune_step(self.with_targets(batch))
        self.average_statistics()

    @torch.no_grad()
    def with_targets(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of sources alone gets the teacher's images as targets."""
        if "source" not in batch or "target" in batch:
            return batch
        return {**batch, "target": self.teacher["generator"](batch["source"])}

    def _finetune_step(self, batch: dict[str, Any]) -> None:
        distillation = self.distillation
        if distillation is None:
            return gan_update(self, self.task, self.student, batch)

        def extra(images: Images) -> Losses:
            losses: Losses = distillation(self.task, self.teacher, batch, images)
            return losses

        with distillation.watching(self.teacher, self.student):
            gan_update(self, self.task, self.student, batch, extra, distillation.task)
        return None

    def on_train_epoch_end(self) -> None:
        """Cross the border after the last epoch of the search: its checkpoint holds the small networks."""
        super().on_train_epoch_end()
        if self.phase == "search" and self.current_epoch + 1 >= self.search_epochs:
            self.cut()
            strategy = self.trainer.strategy
            strategy.model = self
            if hasattr(strategy, "configure_ddp"):
                strategy.configure_ddp()
            strategy.setup_optimizers(self.trainer)

    def cut(self) -> None:
        """Replace the masked networks by the small dense ones of the policy's final masks."""
        assert self.policy is not None
        for name, mask in self.policy.choose(self).items():
            side = self.sides[name]
            small = side.slim(self.bundle(name), mask)
            self._report(side, small)
            for role, network in small.items():
                if self.student_weights == "fresh":
                    renew(network, seed=int(os.environ.get("PL_GLOBAL_SEED", "0")))
                self._adopt_student(role, network)
        for role, made in self._make_missing().items():
            if made is not None:
                self.student[role], self.specs[f"student.{role}"] = made[0].to(self.device), made[1]
        self.enter_finetune()

    def _adopt_student(self, role: str, small: nn.Module) -> None:
        self.student[role] = small
        spec = self.specs[f"teacher.{role}"]
        self.specs[f"student.{role}"] = dataclasses.replace(spec, widths=channel_widths(small))

    def _report(self, side: PrunedSide, small: NetworkGroup) -> None:
        """Count the small networks themselves, independently of the masks, and hold them to the budget."""
        macs = count_macs(small, self._samples(small), self.convention)
        if macs > side.budget:
            raise AssertionError(f"{side.name}: {macs} MACs are above the budget of {side.budget}")
        rank_zero_info(
            f"{' and '.join(small)}: {macs / 1e9:.4g} of {side.cost.full / 1e9:.4g} GMACs "
            f"({self.convention}), budget {side.budget / 1e9:.4g}"
        )

    def _make_missing(self) -> dict[str, Made | None]:
        """Networks that the fine-tuning wants and the teacher has not."""
        here = {role: (network, self.specs[f"teacher.{role}"]) for role, network in self.teacher.items()}
        return self.cast.make_missing(here, self.inputs)

    def _frozen(self) -> list[str]:
        """Generators of the student that stay as they are."""
        others = [role for role in self.task.generators if role not in self.task.compressed]
        return [role for role in others if role in self.student and self.cast.partner == "frozen"]

    def enter_finetune(self) -> None:
        """Drop what only the search needs; the small networks train from now on."""
        self.sides, self.agents = Sides(), nn.ModuleDict()
        self.student.requires_grad_(True)
        for role in self._frozen():
            self.student[role].requires_grad_(False)
        self.phase = "finetune"
        if self.distillation is not None:
            self.distillation.prepare(self.task, self.teacher, self.student, self._sources())
            self.distillation.to(self.device)
        self._set_modes()
        data_of(self._trainer).end_search()

    # -- checkpoints -----------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say also what the masks cover."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY] |= {
            "partner": self.cast.partner,
            "sides": {name: list(self.bundle(name)) for name in self.sides},
            "ignored_layers": self._ignored(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become what the checkpoint describes, before its weights load: its teacher, phase and widths."""
        header = self.require_kind(checkpoint, "compression", "a teacher goes into model.teacher instead")
        path = Path(str(self._trainer.ckpt_path if self._trainer is not None else "the checkpoint"))
        self.inputs.recorded = dict(header["preprocessing"])
        for prefix in header["networks"]:
            part, role = prefix.split(".")
            if part == "teacher":
                self._adopt_teacher(role, *self.cast.read(checkpoint, path, prefix))
        self._require_same_cast(header, path)
        state = checkpoint["state_dict"]
        if self.distillation is None and not self._fitting:  # who only looks at the networks needs none
            for key in [key for key in state if key.startswith("distillation.")]:
                del state[key]
        if header["phase"] == "finetune":
            for prefix in header["networks"]:
                part, role = prefix.split(".")
                if part == "student":
                    self.student[role], self.specs[prefix] = self.cast.read(checkpoint, path, prefix)
            self.enter_finetune()
        elif self._fitting:
            self._resume_search()
        else:
            self._ask_data()
            self.phase, masked = "search", {key.split(".")[1] for key in state if key.startswith("sides.")}
            self._mask_student({name: 1.0 for name in self.budgets if name in masked})  # any budget will do
            for key in [key for key in state if key.startswith("agents.")]:
                del state[key]
        super().on_load_checkpoint(checkpoint)

    @property
    def _fitting(self) -> bool:
        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING

    def _require_same_cast(self, header: Mapping[str, Any], path: Path) -> None:
        """One of two directions can be looked at alone; a run goes on as it began."""
        found, wanted = header.get("wanted", ["generator"]), list(self.task.compressed)
        fitting = self._fitting
        if found != wanted and (fitting or set(wanted) - set(found)):
            raise UserError(
                f"ckpt_path: {path} is of a compression of {' and '.join(found)}, but the task wants "
                f"{' and '.join(wanted)}: give the task that it was made with."
            )
        partner = header.get("partner", self.cast.partner)
        if fitting and partner != self.cast.partner:
            raise UserError(
                f"model.partner: {self.cast.partner} comes too late, {path} began with {partner}: go on with "
                "that, or begin anew."
            )

    def _resume_search(self) -> None:
        self.phase = "search"
        if self.search_epochs == 0:
            raise UserError(
                f"ckpt_path: this checkpoint is in the midst of a search, but {type(self.policy).__name__} "
                "does not search; resume with the policy that began it."
            )
        self._begin_search()
