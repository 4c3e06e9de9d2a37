"""Compression: search for the channels that stay, then fine-tune the small networks, in one fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_gancompress.checkpoints.header import Header, Search
from lightning_gancompress.checkpoints.training import split_prefix
from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.finetune.phase import FinetunePhase
from lightning_gancompress.lightning_internals import trainer_of, wrap_again
from lightning_gancompress.modules.base import GANModule
from lightning_gancompress.modules.check_networks import check_before_search
from lightning_gancompress.modules.teacher_loader import Made, Missing, TeacherLoader
from lightning_gancompress.networks import BatchNorm
from lightning_gancompress.pruning import Convention
from lightning_gancompress.search.phase import Pruning, SearchPhase, ignored_layers
from lightning_gancompress.search.policy import PruningPolicy
from lightning_gancompress.tasks import Role, Side, Task
from lightning_gancompress.training.inputs import Inputs
from lightning_gancompress.training.phase import Schedule
from lightning_gancompress.training.teacher_student import Partner, TeacherStudent


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
        own_weights: Whether `generator` and `discriminator` come with their weights, without a file.
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
        own_weights: bool = False,
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
        super().__init__(task)
        self.remember_arguments()
        self.schedule = Schedule(epochs, decay_epochs, lr, beta1)
        budgets = {Side.GENERATOR: budget, Side.DISCRIMINATOR: discriminator_budget}
        layers = ignored_layers or []
        self.pruning = Pruning(budgets, macs, min_channels, channel_multiple, student_weights, layers)
        self.distillation = _distillation(distill_weight, distillation)
        given = {Side.GENERATOR: generator, Side.DISCRIMINATOR: discriminator}
        made = {
            side: (network, self.describe(side.value, network))
            for side, network in given.items()
            if network is not None
        }
        self.loader = TeacherLoader(self.task, teacher, made, own_weights, batch_norm, partner, missing)
        self.pair = TeacherStudent(self.task, partner)
        self.teacher, self.student = self.pair.teacher, self.pair.student
        self.policy: PruningPolicy | None = None
        self._decided: Search | None = None  # once the border is crossed

    # -- networks --------------------------------------------------------------------------------------

    @property
    def inputs(self) -> Inputs:
        """What the networks read."""
        return self.pair.inputs

    def generators(self, role: Role) -> dict[str, nn.Module]:
        """Teacher and student."""
        return {"teacher": self.teacher[role], "student": self.student[role]}

    def build(self) -> None:
        """Load the teacher from its files and make the student from it, unless they are here."""
        if len(self.teacher):
            return
        for role, (network, spec) in self.loader.load().items():
            self.pair.adopt_teacher(role, network, spec)
        if self.distillation is None and not self.loader.cycles(self.teacher):
            raise UserError(
                "model.distill_weight: 0 leaves nothing that ties a translation to its source, since the "
                "other generator, and with it the cycle, is left out: set it to 10, say."
            )

    def _make_missing(self) -> dict[Role, Made | None]:
        """Networks that the fine-tuning wants and the teacher has not."""
        specs = self.pair.specs
        here = {Role(role): (network, specs[f"teacher.{role}"]) for role, network in self.teacher.items()}
        return self.loader.make_missing(here, self.inputs)

    # -- phases ----------------------------------------------------------------------------------------

    @property
    def border(self) -> int:
        """The epoch in which the fine-tuning begins."""
        if self._decided is not None:
            return self._decided.epochs
        return self.policy.search_epochs if self.policy else 0

    @property
    def total_epochs(self) -> int:
        """Search and fine-tuning."""
        return self.border + self.schedule.length

    def setup(self, stage: str) -> None:
        """Build the networks, unless `on_load_checkpoint` will, before the strategy wraps the module.

        Raises:
            UserError: There is no policy to fit with, or nothing that was trained to look at.
        """
        if stage == "fit":
            self.set_seed()
            if self.policy is None:
                raise UserError(
                    "trainer.callbacks: compression needs a pruning policy; add CollaborativePruning (or "
                    "UniformWidth, L1Magnitude) to the callbacks."
                )
        if not self.trainer.ckpt_path and not self.begun:
            if stage != "fit":
                raise UserError(
                    f"ckpt_path: `{stage}` looks at a compression, and none has been fitted or loaded: give "
                    "its checkpoint, such as --ckpt_path last."
                )
            self.build()
            self._begin_search()
        super().setup(stage)

    def _begin_search(self) -> None:
        """Masks and agents; a policy that needs no search cuts at once."""
        assert self.policy is not None
        searches = self.policy.search_epochs > 0
        check_before_search(self.pair, self._make_missing, self.distillation, self.trainer, searches)
        search = SearchPhase(self.pair, self.pruning, self.policy, self.schedule.beta1)
        for _, pruned in search.pruned():
            rank_zero_info(pruned.summary())
        search.begin()
        self.enter(search)
        if self.policy.search_epochs == 0:
            self._cross_border(search)

    def on_train_epoch_end(self) -> None:
        """Cross the border after the last epoch of the search: its checkpoint holds the small networks."""
        super().on_train_epoch_end()
        if isinstance(self.phase, SearchPhase) and self.current_epoch + 1 >= self.border:
            self._cross_border(self.phase)
            wrap_again(self.trainer, self)

    def _cross_border(self, search: SearchPhase) -> None:
        """Replace the masked networks by the small dense ones of the policy's final masks."""
        assert self.policy is not None
        broadcast = self.trainer.strategy.broadcast
        masks = {side: broadcast(mask) for side, mask in self.policy.choose(search).items()}
        for words in search.cut(masks, self.seed):
            rank_zero_info(words)
        for role, made in self._make_missing().items():
            if made is not None:
                self.pair.adopt_student(role, made[0].to(self.device), made[1])
        self._decided = self._search_facts()
        self._enter_finetune()

    def _enter_finetune(self) -> None:
        phase = FinetunePhase(self.pair, self.schedule, self.pools, self.distillation, self.border)
        if self.distillation is not None:
            self.distillation.to(self.device)
        self.enter(phase)
        data_of(trainer_of(self)).end_search()

    # -- checkpoints -----------------------------------------------------------------------------------

    def _search_facts(self) -> Search:
        """What the search decides, as this run has it."""
        policy, asked = type(self.policy).__name__, self.pruning
        return Search(policy, self.border, dict(asked.budgets), asked.convention)

    def header(self) -> Header:
        """What a checkpoint says of itself."""
        sides = list(self.phase.sides) if isinstance(self.phase, SearchPhase) else []
        return Header(
            kind="compression",
            phase=self.phase.name,
            networks=self.pair.specs,
            preprocessing=self.preprocessing(self.task.compressed[0]),
            compressed=self.task.compressed,
            partner=self.pair.partner,
            sides={Side(side): list(map(Role, self.pair.group(Side(side)))) for side in sides},
            ignored_layers=ignored_layers(self.pair, self.pruning.ignored_layers),
            search=self._decided or self._search_facts(),
            versions=self.versions(),
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become what the checkpoint describes, before its weights load: its teacher, phase and widths."""
        trainer = trainer_of(self)
        path = Path(str(trainer.ckpt_path if trainer is not None else "the checkpoint"))
        remedy = "a teacher goes into model.teacher instead"
        header, state = self.header_of(checkpoint, "compression", path, remedy), checkpoint["state_dict"]
        self.inputs.recorded = dict(header.preprocessing)
        self._adopt(header, checkpoint, path, "teacher")
        self._require_same(header, path)
        if header.phase == "finetune":
            self._decided = header.search or self._search_facts()
            self._adopt(header, checkpoint, path, "student")
            self._enter_finetune()
        elif self._fitting:
            self._resume_search()
        else:
            masked = {side: 1.0 for side in Side if f"sides.{side}.masks.mask" in state}  # any budget will do
            self.enter(SearchPhase(self.pair, self.pruning, None, budgets=masked))
        if not self._fitting:  # who only looks at the networks needs no more
            unused = ("agents.",) if self.distillation is not None else ("agents.", "distillation.")
            for key in [key for key in state if key.startswith(unused)]:
                del state[key]
        super().on_load_checkpoint(checkpoint)

    def _adopt(self, header: Header, checkpoint: dict[str, Any], path: Path, part: str) -> None:
        """Take over the networks of the teacher or the student from a checkpoint."""
        for prefix in header.networks:
            owner, role = split_prefix(prefix)
            if owner == part:
                adopt = self.pair.adopt_teacher if part == "teacher" else self.pair.adopt_student
                adopt(role, *self.loader.read(checkpoint, path, prefix))

    @property
    def _fitting(self) -> bool:
        trainer = trainer_of(self)
        return trainer is not None and trainer.state.fn == TrainerFn.FITTING

    def _require_same(self, header: Header, path: Path) -> None:
        """One of two directions can be looked at alone; a run goes on as it began.

        Raises:
            UserError: An option has changed that can't change any more.
        """
        found, compressed = header.compressed, self.task.compressed
        if found != compressed and (self._fitting or set(compressed) - set(found)):
            raise UserError(
                f"ckpt_path: {path} is of a compression of {' and '.join(found)}, but the task wants "
                f"{' and '.join(compressed)}: give the task that it was made with."
            )
        if not self._fitting:
            return
        late = {"model.partner": (header.partner or self.pair.partner, self.pair.partner)}
        if header.search is not None:
            late |= decided_options(header, self._search_facts())
        for option, (was, now) in late.items():
            if str(was) != str(now):
                raise UserError(
                    f"{option}: {now} comes too late, {path} began with {was}: go on with that, or begin "
                    "anew."
                )

    def _resume_search(self) -> None:
        if self.border == 0:
            raise UserError(
                f"ckpt_path: this checkpoint is in the midst of a search, but {type(self.policy).__name__} "
                "does not search; resume with the policy that began it."
            )
        self._begin_search()


def decided_options(header: Header, now: Search) -> dict[str, tuple[Any, Any]]:
    """What the search of a checkpoint has settled, by option: as it was, and as it is asked for now."""
    was = header.search
    assert was is not None
    found: dict[str, tuple[Any, Any]] = {"trainer.callbacks": (was.policy, now.policy)}
    if header.phase == "finetune":
        found["search_epochs"] = (was.epochs, now.epochs)
        found["model.budget"] = (was.budgets[Side.GENERATOR], now.budgets[Side.GENERATOR])
        found["model.discriminator_budget"] = (
            was.budgets[Side.DISCRIMINATOR],
            now.budgets[Side.DISCRIMINATOR],
        )
        found["model.macs"] = (was.convention, now.convention)
    return found


def _distillation(weight: float, distillation: Distillation | None) -> Distillation | None:
    """The distillation that two options ask for."""
    if weight and distillation is not None:
        raise UserError(
            f"model.distill_weight: {weight} is short for a distillation, and there is one: set "
            "distillation.output instead."
        )
    return Distillation(weight) if weight else distillation
