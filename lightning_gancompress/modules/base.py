"""What every GAN module shares: named optimizers, learning rates, guards, checkpoints, and image steps."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.checkpoints.header import KEY, Header
from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.lightning_internals import made_from_config, set_max_epochs
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.networks.spec import tensor_differences
from lightning_gancompress.tasks import Pix2Pix, Role, Task
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.inputs import Inputs
from lightning_gancompress.training.phase import Phase, Position
from lightning_gancompress.version import __version__

POOLS_KEY = "image_pools"


class GANModule(LightningModule):
    """Owns networks and runs one phase at a time, by manual optimization.

    The phase says what trains and what a step does; the module hands it the optimizers, logs what it returns,
    and keeps the run: lengths are epochs, and counters are batches, since `trainer.global_step` advances once
    per optimizer.

    Args:
        task: Networks and losses; None is Pix2Pix.

    Attributes:
        phase: That it is in; missing before the first.
        inputs: What the networks read.
    """

    phase: Phase
    inputs: Inputs

    def __init__(self, task: Task | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = task or Pix2Pix()
        self.pools = ImagePools(self.task.pool_size)
        self._optimizer_names: list[str] = []
        self._rates: list[list[float]] = []  # by optimizer and parameter group
        self._parts: list[str] = []  # of the phase, registered here
        self._finite: Tensor | None = None
        self.seed = 0

    def remember_arguments(self) -> None:
        """Keep the parsed config as hyper-parameters; in plain Python they would be pickled modules."""
        if made_from_config():
            self.save_hyperparameters()

    def describe(self, argument: str, network: nn.Module) -> NetworkSpec:
        """The recipe of a network that was passed to the constructor under the name `argument`."""
        return NetworkSpec.of(network, self.hparams.get(argument))

    # -- what subclasses say ---------------------------------------------------------------------------

    def generators(self, role: Role) -> dict[str, nn.Module]:
        """Generators to compare in one of the task's roles, by name; the one in training comes last."""
        raise NotImplementedError

    @property
    def total_epochs(self) -> int:
        """Length of the whole run."""
        raise NotImplementedError

    def header(self) -> Header:
        """What a checkpoint says of itself."""
        raise NotImplementedError

    # -- the phase -------------------------------------------------------------------------------------

    def enter(self, phase: Phase) -> None:
        """Begin a phase; its parts take the place of those of the phase before."""
        for name in self._parts:
            delattr(self, name)
        for name, part in phase.parts().items():
            setattr(self, name, part.to(self.device))
        self._parts = list(phase.parts())
        self.phase = phase
        phase.set_modes()

    @property
    def begun(self) -> bool:
        """Whether it has entered a phase."""
        return "phase" in vars(self)

    def position(self, batch_idx: int) -> Position:
        """Where the run is at a batch; the seed depends on nothing else but the seed of the run."""
        seed = ((self.seed * 1_000_003 + self.current_epoch) * 10_000_019 + batch_idx * 1_009) % 2**62
        batches: Any = self.trainer.num_training_batches
        return Position(self.current_epoch, batch_idx, batches, seed)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """A step of the phase."""
        logs = self.phase.step(batch, self.position(batch_idx), self)
        self.log_dict({f"train/{name}": value.detach() for name, value in logs.items()}, prog_bar=False)
        self.average_statistics()

    # -- optimizers ------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer per entry of the phase's `trained`, in its order."""
        self._optimizer_names = list(self.phase.trained())
        optimizers = [self.phase.optimizer(name) for name in self._optimizer_names]
        # as they are made: a checkpoint brings its own, and the user's settings must win
        self._rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        return optimizers

    def optimizer(self, name: str) -> LightningOptimizer:
        """The optimizer of that name."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        chosen = optimizers[self._optimizer_names.index(name)]
        assert isinstance(chosen, LightningOptimizer)
        return chosen

    def step(self, name: str, loss: Tensor) -> None:
        """Backward and step of an optimizer in one go: under fp16 the scale may change between two steps."""
        self.require_finite(loss)
        optimizer = self.optimizer(name)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    @contextmanager
    def toggled(self, name: str) -> Iterator[None]:
        """Meanwhile only the parameters of the optimizer `name` ask for gradients."""
        with self.toggled_optimizer(self.optimizer(name)):
            yield

    # -- hooks -----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Set the length of the run, unless the user asked for a shorter one."""
        self._finite = None
        trainer: Any = self.trainer
        if stage == "fit":
            asked = trainer.max_epochs
            limited = asked is not None and 0 <= asked < self.total_epochs
            set_max_epochs(trainer, asked if limited else self.total_epochs)
            # search and fine-tune read the data differently
            trainer.reload_dataloaders_every_n_epochs = 1

    def set_seed(self) -> None:
        """Take the seed of the run: of `seed_everything`, else of `torch.manual_seed`."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))
        self.seed = self.trainer.strategy.broadcast(seed)

    def on_fit_start(self) -> None:
        """Put every network into the mode of its phase."""
        self.phase.set_modes()

    def on_train_start(self) -> None:
        """Set the learning rates also within an epoch: a resumed run may have been given others."""
        self._set_learning_rates()

    def on_train_epoch_start(self) -> None:
        """Set the learning rates."""
        self.log("train/lr", self._set_learning_rates(), sync_dist=True)

    def _set_learning_rates(self) -> float:
        """A pure function of the optimizers' settings and the epoch, so there is no state to resume."""
        factor = self.phase.lr_factor(self.current_epoch)
        for optimizer, rates in zip(self.trainer.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        return self._rates[0][0] * factor

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the position in the run: a resumed run draws what the uninterrupted one did."""
        torch.manual_seed(self.position(batch_idx).seed + self.global_rank)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look now and then whether all losses were finite."""
        if batch_idx % 50 == 49:
            self._stop_unless_finite()

    def on_train_epoch_end(self) -> None:
        """Look whether all losses were finite, before a checkpoint is written."""
        self._stop_unless_finite()

    # -- checkpoints -----------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the networks, so that they can be rebuilt without Lightning and without a config."""
        self._stop_unless_finite()
        checkpoint[KEY] = self.header().to_dict()
        if self.pools.images:
            # of all ranks, (world, n, C, H, W): each goes on with its own
            checkpoint[POOLS_KEY] = {
                str(role): cast(Tensor, self.all_gather(images)).view(-1, *images.shape).cpu()
                for role, images in self.pools.images.items()
            }

    @staticmethod
    def versions() -> dict[str, str]:
        """Of the packages that write a checkpoint."""
        found = {name: version(name) for name in ("torch", "lightning")}
        return {"lightning_gancompress": __version__, **found}

    @staticmethod
    def header_of(checkpoint: dict[str, Any], kind: str, path: Any, remedy: str) -> Header:
        """The header of a checkpoint, which must be of this kind of module."""
        found = checkpoint.get(KEY, {}).get("kind", "some other project")
        if found != kind:
            raise UserError(f"ckpt_path: this is a checkpoint of {found}, not of {kind}; {remedy}.")
        return Header.of(checkpoint, path)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse tensors of another architecture before any is loaded."""
        for role, images in checkpoint.get(POOLS_KEY, {}).items():
            self.pools.images[Role(role)] = images[self.global_rank % len(images)]
        differences = tensor_differences(self.state_dict(), checkpoint["state_dict"])
        if differences:
            raise UserError(
                "ckpt_path: the checkpoint is of another architecture than the configuration: "
                f"{differences} Give the settings it was made with."
            )

    def preprocessing(self, role: Role) -> dict[str, Any]:
        """What the data does to images, with the channels and the size that a generator's sources had."""
        return self.inputs.record(data_of(self.trainer).preprocessing, role)

    # -- images ----------------------------------------------------------------------------------------

    def translations(self, batch: Mapping[str, Any]) -> dict[Role, dict[str, Tensor]]:
        """Images of a batch per compressed generator's role, in column order: source, target, generators'."""
        columns = {}
        for role, view in self.task.views(batch).items():
            if role in self.task.compressed:
                columns[role] = {name: view[name] for name in ("source", "target") if name in view}
                columns[role] |= {name: net(view["source"]) for name, net in self.generators(role).items()}
        return columns

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """The `translations`, for the callbacks that measure and draw."""
        return self.translations(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """The `translations`, for the callbacks that measure and draw."""
        return self.translations(batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Translated images `(B, C, H, W)` in [-1, 1] with the paths of their sources."""
        return {"image": self(batch["source"]), "path": batch["path"]}

    def forward(self, source: Tensor) -> Tensor:
        """Translate with the compressed generator: the student's, if there is one.

        Raises:
            UserError: Two are compressed.
        """
        if len(self.task.compressed) > 1:
            raise UserError(
                "model.task.direction: both leaves open which generator should translate; choose AtoB "
                "or BtoA."
            )
        *_, generator = self.generators(self.task.compressed[0]).values()
        image: Tensor = generator(source)
        return image

    # -- guards ----------------------------------------------------------------------------------------

    def require_finite(self, loss: Tensor) -> None:
        """Remember a NaN or infinite loss without waiting for the device."""
        finite = loss.detach().isfinite()
        self._finite = finite if self._finite is None else self._finite & finite

    def _stop_unless_finite(self) -> None:
        finite = self._finite is None or bool(self._finite)
        # together: a rank that stops alone leaves the others waiting for it
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise UserError(
                f"The loss became NaN or infinite in epoch {self.current_epoch}; training stopped and the "
                "last good checkpoint is kept. Resume from it with a lower learning rate (model.lr) or "
                "precision 32-true."
            )

    def average_statistics(self) -> None:
        """Average running statistics over ranks: manual optimization does not broadcast buffers.

        To be called within a step: a checkpoint may be written before the module's next hook.
        """
        if self.trainer.world_size == 1:
            return
        buffers = [
            buffer
            for network in self.phase.averaged()
            for name, buffer in network.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ]
        if buffers:
            flat = torch.cat([b.flatten() for b in buffers])
            flat = self.trainer.strategy.reduce(flat, reduce_op="mean")
            for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))
