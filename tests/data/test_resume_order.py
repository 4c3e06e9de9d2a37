"""An interrupted run sees exactly the samples that the uninterrupted one would have, in the same order."""

import json

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import OnExceptionCheckpoint

from lightning_gancompress.data import PairedDataModule, ShardSampler, UnpairedDataModule, ZipSampler


@pytest.fixture(params=["root", "domains"])
def folder(request):
    """Eleven pairs, or domains of five and eleven images: five batches per epoch."""
    return request.getfixturevalue(request.param)


def images(batch):
    return torch.cat([batch[key] for key in ("source", "A", "B") if key in batch])


def indices(batch):
    return [i for key in ("index", "index_A", "index_B") if key in batch for i in batch[key].tolist()]


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
        self.seen.append([self.current_epoch, batch_idx, indices(batch), images(batch).sum().item()])
        for optimizer, network in zip(self.optimizers(), self.networks, strict=True):
            optimizer.zero_grad()
            self.manual_backward(network(images(batch)).square().mean())
            optimizer.step()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.networks[0](images(batch))
        if not self.trainer.sanity_checking:
            self.validated += indices(batch)

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
    unpaired = (root / "trainA").exists()
    data = (UnpairedDataModule if unpaired else PairedDataModule)(
        str(root), batch_size=2, search_batch_size=4, load_size=10, crop_size=8, num_workers=workers
    )
    if search:
        role, count = ("generator_AtoB", 5) if unpaired else ("generator", 11)
        table = torch.arange(count)[:, None].add(torch.arange(3)) % count
        data.search_by({role: table}, 2)
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
def test_resume_from_any_checkpoint(folder, tmp_path_factory, hook, options):
    saved = SaveAll(tmp_path_factory.mktemp("checkpoints"), hook)
    whole = run(folder, callbacks=[saved], **options)
    assert len(whole) == (6 if options.get("search") else 15)
    assert len(saved.seen) >= 3
    for i, seen in enumerate(saved.seen):
        assert run(folder, str(saved.folder / f"{i}.ckpt"), **options) == whole[seen:]


def test_resume_with_workers(folder, tmp_path_factory):
    """Workers fetch as soon as the loader is made, before Lightning has repaired its counters."""
    saved = SaveAll(tmp_path_factory.mktemp("checkpoints"), "on_train_batch_end")
    options = {"workers": 1, "reload_dataloaders_every_n_epochs": 0}
    whole = run(folder, callbacks=[saved], **options)
    for i in (2, 4, 6):  # 4: the last batch of an epoch
        assert run(folder, str(saved.folder / f"{i}.ckpt"), **options) == whole[saved.seen[i] :]


@pytest.mark.parametrize(("first", "second"), [(2, 4), (3, 1), (4, 4), (5, 4), (8, 1)])
def test_resume_after_crashes_within_a_step(folder, tmp_path_factory, first, second):
    saved = tmp_path_factory.mktemp("checkpoints")
    seen = run(folder, callbacks=[OnExceptionCheckpoint(saved, "first")], crash_after=first)
    seen += run(folder, saved / "first.ckpt", [OnExceptionCheckpoint(saved, "second")], crash_after=second)
    seen += run(folder, saved / "second.ckpt")
    assert seen == run(folder)


class Report(Callback):
    """Write down what this rank saw, and by which samplers."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, module):
        loaders = trainer.val_dataloaders
        shared = loaders if isinstance(loaders, list) else [loaders]
        kinds = [isinstance(trainer.train_dataloader.sampler, ZipSampler)]
        kinds += [isinstance(loader.sampler, ShardSampler) for loader in shared]
        facts = {"seen": module.seen, "validated": module.validated, "kinds": kinds}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("kind", "validated"),
    [("root", [[0, 2, 4], [1, 3]]), ("domains", [[0, 2, 0, 2], [1, 1, 3]])],
)
def test_two_ranks_share_the_images(request, tmp_path_factory, kind, validated):
    """Also with a rank that validates one batch less: nothing hangs."""
    folder = tmp_path_factory.mktemp("ranks")
    run(
        request.getfixturevalue(kind),
        callbacks=[Report(folder)],
        max_epochs=2,
        devices=2,
        strategy="ddp_fork_find_unused_parameters_true",
    )
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert all(all(rank["kinds"]) for rank in ranks)
    assert [rank["validated"] for rank in ranks] == [indices * 2 for indices in validated]
    for epoch in range(2):
        # the last two of a batch: of the pairs, or of the larger domain
        shards = [
            [i for e, _, indices, _ in rank["seen"] if e == epoch for i in indices[-2:]] for rank in ranks
        ]
        assert [len(shard) for shard in shards] == [4, 4]
        assert not set(shards[0]) & set(shards[1])
