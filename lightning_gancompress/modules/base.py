"""What every GAN module shares: named optimizers, the learning-rate schedule, guards, checkpoint headers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.networks.spec import tensor_differences
from lightning_gancompress.tasks import Images, Pix2Pix, Task
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.inputs import Inputs

CHECKPOINT_KEY = "gancompress"
POOLS_KEY = "image_pools"


class GANModule(LightningModule):
    """A module that trains several networks, each with its own optimizer, by manual optimization.

    Subclasses name the networks that are trained now (`trained_networks`) and compute the losses. Lengths
    are epochs, and counters are batches: `trainer.global_step` advances once per optimizer.

    Args:
        task: Networks and losses; None is Pix2Pix.
        lr: Adam's learning rate (upstream: 2e-4).
        beta1: Adam's first momentum (upstream: 0.5).
    """

    phase: str

    def __init__(self, task: Task | None, lr: float, beta1: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = task or Pix2Pix()
        self.pools = ImagePools(self.task.pool_size)
        self.inputs = Inputs(self.task)
        self.lr, self.beta1 = lr, beta1
        self.specs: dict[str, NetworkSpec] = {}
        self._optimizer_names: list[str] = []
        self._rates: list[list[float]] = []  # by optimizer and parameter group
        self._finite: Tensor | None = None

    def remember_arguments(self) -> None:
        """Keep the parsed config as hyper-parameters; in plain Python they would be pickled modules."""
        if _given_hyperparameters.get() is not None:
            self.save_hyperparameters()

    def describe(self, role: str, network: nn.Module) -> NetworkSpec:
        """The recipe of a network that was passed to the constructor under the name `role`."""
        return NetworkSpec.of(network, self.hparams.get(role))

    # -- what subclasses say ---------------------------------------------------------------------------

    def trained_networks(self) -> dict[str, nn.Module]:
        """Networks that have an optimizer in this phase, by role."""
        raise NotImplementedError

    def averaging_networks(self) -> list[nn.Module]:
        """Networks whose batch norms follow what they see in this phase."""
        return list(self.trained_networks().values())

    def generators(self, role: str) -> dict[str, nn.Module]:
        """Generators to compare in one of the task's roles, by name; the one in training comes last."""
        raise NotImplementedError

    def lr_factor(self, epoch: int) -> float:
        """Learning rate of an epoch, relative to `lr`."""
        raise NotImplementedError

    @property
    def total_epochs(self) -> int:
        """Length of the whole run."""
        raise NotImplementedError

    # -- optimizers ------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer per entry of `trained_networks`, in a fixed order."""
        networks = self.trained_networks()
        self._optimizer_names = list(networks)
        optimizers = [self.make_optimizer(name, network) for name, network in networks.items()]
        # as they are made: a checkpoint brings its own, and the user's settings must win
        self._rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        return optimizers

    def make_optimizer(self, name: str, network: nn.Module) -> Optimizer:
        """Adam with upstream's momenta."""
        return Adam(network.parameters(), lr=self.lr, betas=(self.beta1, 0.999))

    def optimizer(self, name: str) -> LightningOptimizer:
        """The optimizer of a trained network."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        chosen = optimizers[self._optimizer_names.index(name)]
        assert isinstance(chosen, LightningOptimizer)
        return chosen

    def step(self, name: str, loss: Tensor) -> None:
        """Backward and step of one network, in one go: under fp16 the scale may change between two steps."""
        self.require_finite(loss)
        optimizer = self.optimizer(name)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    # -- hooks -----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Set the length of the run, unless the user asked for a shorter one."""
        trainer: Any = self.trainer
        if stage == "fit":
            asked = trainer.max_epochs
            limited = asked is not None and 0 <= asked < self.total_epochs
            trainer.fit_loop.max_epochs = asked if limited else self.total_epochs
            # search and fine-tune read the data differently
            trainer.reload_dataloaders_every_n_epochs = 1

    def on_train_start(self) -> None:
        """Set the learning rates also within an epoch: a resumed run may have been given others."""
        self._set_learning_rates()

    def on_train_epoch_start(self) -> None:
        """Set the learning rates."""
        self.log("train/lr", self._set_learning_rates(), sync_dist=True)

    def _set_learning_rates(self) -> float:
        """A pure function of the optimizers' settings and the epoch, so there is no state to resume."""
        factor = self.lr_factor(self.current_epoch)
        for optimizer, rates in zip(self.trainer.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        return self._rates[0][0] * factor

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the position in the run: a resumed run draws what the uninterrupted one did."""
        torch.manual_seed(self.step_seed(batch_idx) + self.global_rank)

    def step_seed(self, batch_idx: int) -> int:
        """A number for this batch of this epoch of this seed, the same on all ranks."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        return ((seed * 1_000_003 + self.current_epoch) * 10_000_019 + batch_idx * 1_009) % 2**62

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look now and then whether all losses were finite."""
        if batch_idx % 50 == 49:
            self._stop_unless_finite()

    def on_train_epoch_end(self) -> None:
        """Look whether all losses were finite, before a checkpoint is written."""
        self._stop_unless_finite()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the networks, so that they can be rebuilt without Lightning and without a config."""
        self._stop_unless_finite()
        checkpoint[CHECKPOINT_KEY] = {
            "version": 1,
            "kind": "teacher" if self.phase == "teacher" else "compression",
            "phase": self.phase,
            "networks": {prefix: spec.to_dict() for prefix, spec in self.specs.items()},
            "preprocessing": self.preprocessing(self.task.compressed[0]),
            "wanted": list(self.task.compressed),
        }
        if self.pools.images:
            # of all ranks, (world, n, C, H, W): each goes on with its own
            checkpoint[POOLS_KEY] = {
                role: cast(Tensor, self.all_gather(images)).view(-1, *images.shape).cpu()
                for role, images in self.pools.images.items()
            }

    def preprocessing(self, role: str) -> dict[str, Any]:
        """What the data does to images, with the channels and the size that a generator's sources had."""
        return self.inputs.record(data_of(self.trainer).preprocessing, role)

    @staticmethod
    def require_kind(checkpoint: dict[str, Any], kind: str, remedy: str) -> dict[str, Any]:
        """The header of a checkpoint, which must be of this kind of module."""
        header: dict[str, Any] = checkpoint.get(CHECKPOINT_KEY, {})
        if header.get("kind") != kind:
            found = header.get("kind", "some other project")
            raise UserError(f"ckpt_path: this is a checkpoint of {found}, not of {kind}; {remedy}.")
        return header

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse tensors of another architecture before any is loaded."""
        for role, images in checkpoint.get(POOLS_KEY, {}).items():
            self.pools.images[role] = images[self.global_rank % len(images)]
        differences = tensor_differences(self.state_dict(), checkpoint["state_dict"])
        if differences:
            raise UserError(
                "ckpt_path: the checkpoint is of another architecture than the configuration: "
                f"{differences} Give the settings it was made with."
            )

    # -- images ----------------------------------------------------------------------------------------

    def translations(self, batch: Mapping[str, Any]) -> dict[str, Images]:
        """Images of one batch per wanted generator's role, in column order: source, target, generators'."""
        columns = {}
        for role, view in self.task.views(batch).items():
            if role in self.task.compressed:
                columns[role] = {name: view[name] for name in ("source", "target") if name in view}
                columns[role] |= {name: net(view["source"]) for name, net in self.generators(role).items()}
        return columns

    def validation_step(
        self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Images]:
        """Images for the callbacks that measure and draw."""
        return self.translations(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Images]:
        """Images for the callbacks that measure and draw."""
        return self.translations(batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Translated images `(B, C, H, W)` in [-1, 1] with the paths of their sources."""
        return {"image": self(batch["source"]), "path": batch["path"]}

    def forward(self, source: Tensor) -> Tensor:
        """Translate with the wanted generator: the student's, if there is one.

        Raises:
            UserError: Two are wanted.
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
            for network in self.averaging_networks()
            for name, buffer in network.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ]
        if buffers:
            flat = torch.cat([b.flatten() for b in buffers])
            flat = self.trainer.strategy.reduce(flat, reduce_op="mean")
            for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))
