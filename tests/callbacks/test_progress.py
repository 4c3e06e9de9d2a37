import re
from types import SimpleNamespace

import pytest
import tiny
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_gancompress.callbacks import ProgressLines, progress
from lightning_gancompress.cli import main


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


def test_a_pace_is_that_of_the_epoch(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    trainer = SimpleNamespace(world_size=2, current_epoch=1, num_training_batches=10)
    pace = progress.Pace()
    pace.begin()
    for _ in range(4):
        pace.add(trainer, {"source": torch.zeros(8, 3, 4, 4)})
    now[0] += 2.0
    assert pace.images / pace.seconds == 32  # four batches of eight on each of two ranks in two seconds
    assert pace.left(trainer, 3, 4) == 8.0  # sixteen more batches of half a second
    assert pace.left(trainer, 1, 10) == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (750.4, "12:30"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert progress.clock(seconds) == text


def test_lines_tell_phase_pace_and_budget(unet, facades, tmp_path, capsys):
    main([*tiny.compression(tmp_path, unet), *facades])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [re.match(r"epoch \d/4 \(([a-z-]+)\)", line)[1] for line in lines] == ["search"] * 2 + [
        "fine-tuning"
    ] * 2
    assert all(re.search(r" s, [\d.e+]+ images/s, \d+:\d\d left", line) for line in lines)
    assert [re.findall(r"MACs [\d.]+% to 30\.0%", line) != [] for line in lines] == [True] * 2 + [False] * 2
    assert " 0:00 left" in lines[1]  # of the search
    assert "left, MACs" in lines[0]


def test_bars_tell_the_same_in_a_terminal(unet, facades, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    shown = []

    def set_postfix(self, figures):
        if not self.disable:
            shown.append((self.desc, figures))

    monkeypatch.setattr(Tqdm, "set_postfix", set_postfix)
    main([*tiny.compression(tmp_path, unet), *facades])
    assert [description for description, _ in shown][:4] == ["epoch 1/4 (search): "] * 4
    assert shown[-1][0] == "epoch 4/4 (fine-tuning): "
    assert set(shown[0][1]) == {"images/s", "left", "MACs"}
    assert shown[0][1]["MACs"].endswith("to 30.0%")
    assert "v_num" not in shown[-1][1]
    assert not [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 1/4 (search) in")
    ]
