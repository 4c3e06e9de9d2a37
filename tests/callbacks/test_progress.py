from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_gancompress.callbacks import ProgressLines


class Scored(BoringModel):
    def validation_step(self, batch, batch_idx):
        self.log("val/l1", float(self.current_epoch))


def test_an_epoch_without_validation_repeats_no_figures(tmp_path, capsys):
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        default_root_dir=tmp_path,
        callbacks=ProgressLines(),
        limit_train_batches=2,
        limit_val_batches=1,
        max_epochs=3,
        check_val_every_n_epoch=2,
        **options,
    )
    trainer.fit(Scored())
    lines = capsys.readouterr().out.splitlines()
    assert ["val/l1" in line for line in lines] == [False, True, False]
    assert lines[1].endswith("val/l1 1")
