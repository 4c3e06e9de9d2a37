"""An interrupted run sees exactly the samples that the uninterrupted one would have, in the same order."""

import json

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import OnExceptionCheckpoint

from lightning_gancompress.data import PairedDataModule, ShardSampler, ZipSampler


class Recorder(LightningModule):
    """Two optimizers by hand, as GANs have; notes epoch, batch index, samples and a sum of their pixels."""

    def __init__(self, crash_after=None):
        super().__init__()
        self.automatic_optimization = False
        self.networks = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)) for _ in range(2)
        )
        self.seen, self.validated, self.crash_after = [], [], crash_after

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.crash_after:
            raise InterruptedError
        self.seen.append(
            [self.current_epoch, batch_idx, batch["index"].tolist(), batch["source"].sum().item()]
        )
        for optimizer, network in zip(self.optimizers(), self.networks, strict=True):
            optimizer.zero_grad()
            self.manual_backward(network(batch["source"]).square().mean())
            optimizer.step()

    def validation_step(self, batch, batch_idx):
        self.networks[0](batch["source"])
        if not self.trainer.sanity_checking:
            self.validated += batch["index"].tolist()

    def configure_optimizers(self):
        return [torch.optim.SGD(network.parameters(), 0.1) for network in self.networks]


class SaveAll(Callback):
    """Save in one hook, each time, and note how many batches were seen by then."""

    def __init__(self, folder, hook):
        self.folder, self.seen = folder, []
        setattr(self, hook, self.save)

    def save(self, trainer, module, *_):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{len(self.seen)}.ckpt")
            self.seen.append(len(module.seen))


def run(root, ckpt=None, callbacks=(), crash_after=None, workers=0, search=False, **options):
    data = PairedDataModule(
        str(root), batch_size=2, search_batch_size=4, load_size=10, crop_size=8, num_workers=workers
    )
    if search:
        data.neighbourhoods, data.members = (
            {"generator": torch.arange(11)[:, None].add(torch.arange(3)) % 11},
            2,
        )
    module = Recorder(crash_after)
    trainer = Trainer(
        **{"max_epochs": 3, "devices": 1, "reload_dataloaders_every_n_epochs": 1, **options},
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, OnExceptionCheckpoint) for callback in callbacks),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(module, data, ckpt_path=ckpt)
    except InterruptedError:
        assert crash_after is not None
    return module.seen


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"])
@pytest.mark.parametrize(
    "options", [{}, {"val_check_interval": 2}, {"reload_dataloaders_every_n_epochs": 0}, {"search": True}]
)
def test_resume_from_any_checkpoint(root, tmp_path_factory, hook, options):
    saved = SaveAll(tmp_path_factory.mktemp("checkpoints"), hook)
    whole = run(root, callbacks=[saved], **options)
    assert len(whole) == (6 if options.get("search") else 15)
    assert len(saved.seen) >= 3
    for i, seen in enumerate(saved.seen):
        assert run(root, str(saved.folder / f"{i}.ckpt"), **options) == whole[seen:]


def test_resume_with_workers(root, tmp_path_factory):
    """Workers fetch as soon as the loader is made, before Lightning has repaired its counters."""
    saved = SaveAll(tmp_path_factory.mktemp("checkpoints"), "on_train_batch_end")
    options = {"workers": 1, "reload_dataloaders_every_n_epochs": 0}
    whole = run(root, callbacks=[saved], **options)
    for i in (2, 4, 6):  # 4: the last batch of an epoch
        assert run(root, str(saved.folder / f"{i}.ckpt"), **options) == whole[saved.seen[i] :]


@pytest.mark.parametrize(("first", "second"), [(2, 4), (3, 1), (4, 4), (5, 4), (8, 1)])
def test_resume_after_crashes_within_a_step(root, tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("checkpoints")
    seen = run(root, callbacks=[OnExceptionCheckpoint(folder, "first")], crash_after=first)
    seen += run(root, folder / "first.ckpt", [OnExceptionCheckpoint(folder, "second")], crash_after=second)
    seen += run(root, folder / "second.ckpt")
    assert seen == run(root)


class Report(Callback):
    """Write down what this rank saw, and by which samplers."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, module):
        kinds = (
            isinstance(trainer.train_dataloader.sampler, ZipSampler),
            isinstance(trainer.val_dataloaders.sampler, ShardSampler),
        )
        facts = {"seen": module.seen, "validated": module.validated, "kinds": kinds}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(facts))


def test_two_ranks_share_the_images(root, tmp_path_factory):
    """Also with a rank that validates one batch less: nothing hangs."""
    folder = tmp_path_factory.mktemp("ranks")
    run(
        root,
        callbacks=[Report(folder)],
        max_epochs=2,
        devices=2,
        strategy="ddp_fork_find_unused_parameters_true",
    )
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert [rank["kinds"] for rank in ranks] == [[True, True]] * 2
    assert [rank["validated"] for rank in ranks] == [[0, 2, 4] * 2, [1, 3] * 2]
    for epoch in range(2):
        shards = [[i for e, _, indices, _ in rank["seen"] if e == epoch for i in indices] for rank in ranks]
        assert [len(shard) for shard in shards] == [4, 4]
        assert not set(shards[0]) & set(shards[1])
