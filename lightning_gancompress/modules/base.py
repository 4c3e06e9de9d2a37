"""The base LightningModule: phases, named optimizers, learning rates, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.checkpoints.header import KEY, Header, kind_of
from lightning_gancompress.checkpoints.resumable import POOLS_KEY, WINDOW_KEY, require_fitting
from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.lightning_internals import (
    batches_of_epoch_in_progress,
    epochs_in,
    made_from_config,
    set_max_epochs,
    trainer_of,
)
from lightning_gancompress.modules.gradients import Window
from lightning_gancompress.modules.optimizers import fit_states, fused
from lightning_gancompress.modules.saved_arguments import require_known_arguments
from lightning_gancompress.modules.supported import (
    computed_dtype,
    loss_scale,
    memory_format,
    require_supported,
    scales_losses,
)
from lightning_gancompress.modules.translating import TranslatingModule
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.networks.spec import tensor_differences
from lightning_gancompress.ranks import of_all_ranks
from lightning_gancompress.tasks import Pix2Pix, Role, Task
from lightning_gancompress.training.averages import Averages, to_trained_weights
from lightning_gancompress.training.batch_norms import average_statistics
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.inputs import Inputs
from lightning_gancompress.training.phase import Phase, Position
from lightning_gancompress.version import __version__

ClipAlgorithm = Literal["norm", "value"]


class GANModule(TranslatingModule):
    """Owns the networks and runs one phase at a time, by manual optimization.

    The phase defines the trained networks and the training step; the module passes it the optimizers, logs
    the scalars that it returns, and saves checkpoints. Lengths are counted in epochs and batches:
    Lightning's own trainer advances `global_step` once per optimizer; this project's counts batches.

    Args:
        task: Networks and losses; None is Pix2Pix.
        gradient_clip_val: Limit of the gradients in each step of each optimizer; None for none.
        gradient_clip_algorithm: Whether the limit is of the `norm` of all gradients of an optimizer, or of
            each `value`.
        accumulate_grad_batches: Batches whose gradients are averaged for a step of the optimizers; the last
            step of an epoch may take fewer.

    Attributes:
        phase: Current phase; not set before the first one begins.
        inputs: Blank inputs of the networks.
        seed: Seed of the run.
        images: Digest of the training images; empty before a fit.
        averages: Moving averages of the trained generators; None unless `GeneratorEMA` averages them.
        trained_epochs: Finished epochs of the run; None without one.
    """

    phase: Phase
    inputs: Inputs
    _last_seeds = (0, 0)  # that of the last step in this process, which is no user's, and that of its run

    def __init__(
        self,
        task: Task | None,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: ClipAlgorithm = "norm",
        accumulate_grad_batches: int = 1,
    ) -> None:
        super().__init__(task or Pix2Pix())
        self.automatic_optimization = False
        self.pools = ImagePools(self.task.pool_size)
        self._optimizer_names: list[str] = []
        self._options: list[list[dict[str, Any]]] = []  # by optimizer and parameter group
        self._base_lrs: list[list[float]] = []
        self._phase_modules: list[str] = []  # names of the phase's modules that are registered here
        self._finite: Tensor | None = None
        self._window, self._at = Window(accumulate_grad_batches), cast(Position | None, None)
        self._clip = gradient_clip_val, gradient_clip_algorithm
        self.seed, self.images = 0, ""
        self._format = torch.contiguous_format
        self.averages: Averages | None = None
        self.trained_epochs: int | None = None

    def remember_arguments(self) -> None:
        """Save the parsed config as `hparams`; outside the command line they would be pickled modules."""
        if made_from_config():
            self.save_hyperparameters()

    def describe(self, argument: str, network: nn.Module) -> NetworkSpec:
        """The spec of a network that was passed to the constructor as `argument`."""
        return NetworkSpec.of(network, self.hparams.get(argument))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Lightning's way to make a module from a checkpoint, which may name classes of this package only.

        Raises:
            UserError: The checkpoint names other classes.
        """
        require_known_arguments(checkpoint_path, cls)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    # -- implemented by subclasses ---------------------------------------------------------------------

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run."""
        raise NotImplementedError

    def header(self) -> Header:
        """The header of a checkpoint of the current state."""
        raise NotImplementedError

    # -- the phase -------------------------------------------------------------------------------------

    def enter(self, phase: Phase) -> None:
        """Begin a phase: register its modules in place of those of the phase before."""
        for name in self._phase_modules:
            delattr(self, name)
        modules = phase.saved_modules()
        for name, module in modules.items():
            setattr(self, name, module)
        self._phase_modules = list(modules)
        self.place()
        self.phase = phase
        phase.set_modes()

    def place(self) -> None:
        """Move, cast and lay out what is new within a run."""
        self.to(self.device, cast(torch.dtype, self.dtype))
        self._lay_out()

    @property
    def fitting(self) -> bool:
        """Whether the module's trainer trains it."""
        trainer = trainer_of(self)
        return trainer is not None and trainer.state.fn == TrainerFn.FITTING

    @property
    def begun(self) -> bool:
        """Whether the first phase has begun."""
        return "phase" in vars(self)

    def position(self, batch_idx: int) -> Position:
        """Position of a batch in the run; its seed is a function of the run's seed, epoch and batch."""
        seed = ((self.seed * 1_000_003 + self.current_epoch) * 10_000_019 + batch_idx * 1_009) % 2**62
        batches: Any = self.trainer.num_training_batches
        return Position(self.current_epoch, batch_idx, batches, seed, self._window.batches)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Run one step of the phase and log its scalars."""
        self._at = self.position(batch_idx)
        images = {name: x for name, x in batch.items() if isinstance(x, Tensor) and x.ndim == 4}
        laid_out = {name: x.contiguous(memory_format=self._format) for name, x in images.items()}
        logs = self.phase.step(batch | laid_out, self._at, self)
        self.log_dict({f"train/{name}": value.detach() for name, value in logs.items()}, prog_bar=False)
        if self.trainer.world_size > 1:
            # within the step, since a checkpoint may be written before the module's next hook
            average_statistics(self.phase.averaged(), partial(self.trainer.strategy.reduce, reduce_op="mean"))

    # -- optimizers ------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer per entry of the phase's `trained`, in its order."""
        self._optimizer_names = list(self.phase.trained())
        optimizers = [self.phase.optimizer(name) for name in self._optimizer_names]
        if not scales_losses(self.trainer):  # a fused one would unscale gradients after they are clipped
            optimizers = [fused(optimizer) for optimizer in optimizers]
        # read before a checkpoint is loaded: the user's learning rates override those in it
        self._options = [
            [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            for optimizer in optimizers
        ]
        self._base_lrs = [[group["lr"] for group in options] for options in self._options]
        return optimizers

    def optimizer(self, name: str) -> LightningOptimizer:
        """The optimizer `name`, as Lightning wraps it."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        optimizer = optimizers[self._optimizer_names.index(name)]
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def step(self, name: str, loss: Tensor) -> None:
        """Run the backward pass of `loss`, and at the end of a window step the optimizer `name` at once.

        Under fp16 the gradient scale may change between two steps.
        """
        self.require_finite(loss)
        optimizer, window, at = self.optimizer(name), self._window, self._at
        assert at is not None
        if begins := window.begins(at):
            optimizer.zero_grad()
        if window.batches > 1:
            window.rescale(name, optimizer.optimizer, loss_scale(self.trainer), begins)
            loss = loss * window.weight(at)
        self.manual_backward(loss)
        if window.ends(at):
            optimizer.step()

    @property
    def stepped(self) -> bool:
        """Whether the optimizers have stepped in the last batch: gradients are not accumulated for more."""
        return self._at is None or self._window.ends(self._at)

    def _optimizers_by_name(self) -> dict[str, Optimizer]:
        return dict(zip(self._optimizer_names, self.trainer.optimizers, strict=True))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradients, which are no longer scaled here under fp16."""
        value, algorithm = self._clip
        if value is not None:
            self.clip_gradients(optimizer, gradient_clip_val=value, gradient_clip_algorithm=algorithm)

    @contextmanager
    def toggled(self, name: str) -> Iterator[None]:
        """Context in which only the parameters of the optimizer `name` require gradients."""
        with self.toggled_optimizer(self.optimizer(name)):
            yield

    # -- hooks -----------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Refuse what this project's modules can't do: the first hook, before Lightning's own checks."""
        require_supported(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        """Set the seed of a fit, and `trainer.max_epochs` to its length, unless the user has set a lower one.

        The seed is that with which the user has seeded torch last, also by `seed_everything`.
        """
        # after a fork torch makes its pool of threads anew: two backward passes that do so at once abort
        torch.set_num_threads(torch.get_num_threads())
        self._finite, self._at = None, None
        self.to(computed_dtype(self.trainer))  # an earlier trainer may have had another precision
        self._lay_out()
        if stage != "fit":
            return
        trainer: Any = self.trainer
        last, seed = GANModule._last_seeds
        self.seed = trainer.strategy.broadcast(seed if torch.initial_seed() == last else torch.initial_seed())
        data_of(trainer).follow(self.seed)
        self.images = data_of(trainer).images()
        set_max_epochs(trainer, self._last_epoch(trainer))
        # search and fine-tuning have different batches
        trainer.reload_dataloaders_every_n_epochs = 1

    def _lay_out(self) -> None:
        """Lay the filters of convolutions out in memory as the trainer has it."""
        self._format = memory_format(trainer_of(self), self)
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=self._format)

    def _last_epoch(self, trainer: Any) -> int:
        """Epoch at whose start a fit ends: the trainer's `max_epochs`, at most the end of the schedule."""
        if trainer.fast_dev_run:
            if trainer.ckpt_path:
                raise UserError(
                    "trainer.fast_dev_run: it tries every phase of a new run: leave ckpt_path out, or limit "
                    "the resumed run by trainer.max_steps."
                )
            return self.total_epochs
        for name, epochs in {"max_epochs": trainer.max_epochs, "min_epochs": trainer.min_epochs}.items():
            if epochs is not None and epochs > self.total_epochs:
                rank_zero_warn(
                    f"trainer.{name}: {epochs} is above the {self.total_epochs} epochs of this run, which "
                    "ends with its schedule: to train longer, raise model.epochs or model.decay_epochs."
                )
        limited = trainer.max_epochs is not None and trainer.max_epochs >= 0
        return min(trainer.max_epochs, self.total_epochs) if limited else self.total_epochs

    def shortened(self, epochs: int) -> int:
        """The length of a phase of `epochs`: in a development run (`fast_dev_run`) one epoch."""
        trainer = trainer_of(self)
        return min(epochs, 1) if trainer is not None and trainer.fast_dev_run else epochs  # type: ignore[attr-defined]

    @property
    def epochs_done(self) -> float:
        """Epochs of the run that are done, with the done share of one that a stop has cut short."""
        return self.position(batches_of_epoch_in_progress(self.trainer) or 0).epochs

    def on_fit_end(self) -> None:
        """Say that a run was stopped before its end."""
        if self.epochs_done < self.total_epochs:
            rank_zero_info(
                f"Stopped after {self.epochs_done:.4g} of {self.total_epochs} epochs; resumed from its last "
                "checkpoint the run goes on."
            )

    def on_fit_start(self) -> None:
        """Put the networks into training or eval mode, as the phase has them."""
        self.phase.set_modes()

    def on_train_start(self) -> None:
        """Set the options of the optimizers, since a resumed run may have been given others.

        Raises:
            UserError: A restored state of an optimizer is damaged.
        """
        for optimizer, options in zip(self.trainer.optimizers, self._options, strict=True):
            for group, own in zip(optimizer.param_groups, options, strict=True):
                group.update(own)
        require_fitting(self.trainer.optimizers)
        for optimizer in self.trainer.optimizers:
            fit_states(optimizer)
        self._set_learning_rates()
        self._window.restore(self._optimizers_by_name())

    def on_train_epoch_start(self) -> None:
        """Set and log the learning rates."""
        self.log("train/lr", self._set_learning_rates(), sync_dist=True)

    def _set_learning_rates(self) -> float:
        """Set the learning rates as a function of the epoch, without state; return the first one."""
        factor = self.phase.lr_factor(self.current_epoch)
        for optimizer, base_lrs in zip(self.trainer.optimizers, self._base_lrs, strict=True):
            for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = base_lr * factor
        return self._base_lrs[0][0] * factor

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the position in the run, so that a resumed run equals an uninterrupted one."""
        seed = self.position(batch_idx).seed + self.global_rank
        torch.manual_seed(seed)
        GANModule._last_seeds = seed, self.seed

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop after every 50 batches if a loss was not finite."""
        if batch_idx % 50 == 49:
            self._stop_unless_finite()

    def on_train_epoch_end(self) -> None:
        """Stop if a loss was not finite, before a checkpoint is written."""
        self._stop_unless_finite()
        self.trained_epochs = self.current_epoch + 1

    # -- checkpoints -----------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the header, which suffices to rebuild the networks, and the image pools of all ranks."""
        self._stop_unless_finite()
        checkpoint[KEY] = self.header().to_dict()
        if self.averages is not None:
            self.averages.save(checkpoint)
        if not self.stepped:
            checkpoint[WINDOW_KEY] = self._window.state(self._optimizers_by_name())
        if self.pools.images:
            # by role the images of each rank: a resumed one takes its own
            checkpoint[POOLS_KEY] = {
                str(role): of_all_ranks([image.cpu() for image in images])
                for role, images in self.pools.images.items()
            }

    @staticmethod
    def versions() -> dict[str, str]:
        """Versions of the packages that write a checkpoint, by name."""
        others = {name: version(name) for name in ("torch", "lightning")}
        return {"lightning_gancompress": __version__, **others}

    @staticmethod
    def header_of(checkpoint: dict[str, Any], kind: str, path: Any, remedy: str) -> Header:
        """The header of a checkpoint that must be of `kind`.

        Raises:
            UserError: It is of another kind of module or of another project; `remedy` ends the sentence.
        """
        found = kind_of(checkpoint) or "some other project"
        if found != kind:
            raise UserError(f"ckpt_path: this is a checkpoint of {found}, not of {kind}; {remedy}.")
        return Header.of(checkpoint, path)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the image pools, and check the tensors before Lightning loads them.

        Raises:
            UserError: The tensors are those of another architecture.
        """
        self.trained_epochs = epochs_in(checkpoint)[1] or None
        if self.fitting:
            averaged, steps = to_trained_weights(checkpoint)
            if self.averages is not None:
                self.averages.load(averaged, steps)
            elif averaged:
                rank_zero_warn(
                    "The weights of the resumed run were averaged and are no longer: to go on with that, add "
                    "GeneratorEMA to trainer.callbacks."
                )
        for role, images in checkpoint.get(POOLS_KEY, {}).items():
            # copies: earlier releases stacked the images of all ranks
            self.pools.images[Role(role)] = [x.clone() for x in images[self.global_rank % len(images)]]
        self._window.load(checkpoint.get(WINDOW_KEY, {}))
        differences = tensor_differences(self.state_dict(), checkpoint["state_dict"])
        if differences:
            raise UserError(
                "ckpt_path: the checkpoint is of another architecture than the configuration: "
                f"{differences} Give the settings it was made with."
            )

    def preprocessing(self, role: Role) -> dict[str, Any]:
        """The data's preprocessing with the channels, and the image size, of a generator's sources."""
        return self.inputs.complete(data_of(self.trainer).preprocessing, role)

    # -- guards ----------------------------------------------------------------------------------------

    def require_finite(self, loss: Tensor) -> None:
        """Record on the device whether the loss is finite, without synchronising; checked later."""
        finite = loss.detach().isfinite()
        self._finite = finite if self._finite is None else self._finite & finite

    def _stop_unless_finite(self) -> None:
        finite = self._finite is None or bool(self._finite)
        # decided by all ranks: if one stopped alone, the others would hang
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise UserError(
                f"The loss became NaN or infinite in epoch {self.current_epoch}; training stopped and the "
                "last good checkpoint is kept. Resume from it with a lower learning rate (model.lr) or "
                "precision 32-true."
            )
