"""A module with the outputs that the callbacks rely on, and a run of it in two processes.

`python tiny_module.py FOLDER` tests it in two processes, with Lightning's own sampler, which pads the shares.
"""

import sys
from types import SimpleNamespace

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_gancompress.tasks import Pix2Pix, Role


class Pairs(Dataset):
    """Random pairs, always the same."""

    def __init__(self, n=5, size=16, numbered=True, paired=True):
        generator = torch.Generator().manual_seed(0)
        self.source, self.target = (
            torch.rand(n, 3, size, size, generator=generator) * 2 - 1 for _ in range(2)
        )
        self.numbered, self.paired = numbered, paired

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        item = {"source": self.source[index], "path": f"{index}.jpg"}
        item |= {"target": self.target[index]} if self.paired else {}
        return item | {"index": index} if self.numbered else item


class TinyModule(LightningModule):
    """Generators of one convolution each."""

    def __init__(self, names=("teacher", "student"), phase="finetune"):
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(1)
        self.networks = nn.ModuleDict({name: nn.Conv2d(3, 3, 3, padding=1) for name in names})
        self.phase, self.task = SimpleNamespace(name=phase), Pix2Pix()

    def generators(self, role):
        return dict(self.networks)

    def training_step(self, batch, batch_idx):
        pass

    def validation_step(self, batch, batch_idx):
        images = {name: net(batch["source"]).tanh() for name, net in self.networks.items()}
        return {Role("generator"): {k: batch[k] for k in ("source", "target") if k in batch} | images}

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return {"image": batch["source"], "path": batch["path"]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def make_trainer(folder, *callbacks, **arguments):
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    quiet |= {"enable_checkpointing": False, "default_root_dir": folder, "callbacks": list(callbacks)}
    return Trainer(**(quiet | arguments))


def main(folder):
    from lightning_gancompress.callbacks.image_grid import ImageGrid
    from lightning_gancompress.evaluation.evaluation import Evaluation

    torch.set_num_threads(1)
    callbacks = [Evaluation(latency=False), ImageGrid(n_images=2)]
    trainer = make_trainer(folder, *callbacks, devices=2, strategy="ddp_fork")
    trainer.test(TinyModule(), DataLoader(Pairs(), batch_size=2), verbose=False)


if __name__ == "__main__":
    main(sys.argv[1])
