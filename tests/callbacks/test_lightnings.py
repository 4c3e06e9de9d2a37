"""Callbacks, loggers and profilers of Lightning in a compression: they work, through the border."""

import pytest
import tiny

from lightning_gancompress.cli import main


def size(batch) -> int:
    return len(batch["source"])


def add(name: str, *options: str) -> list[str]:
    return [f"--trainer.callbacks+={name}", *(f"--trainer.callbacks.{option}" for option in options)]


TOGETHER = {
    "callbacks": [
        "--trainer.logger=true",
        "--trainer.profiler=simple",
        *add("Timer", "duration=00:01:00:00"),
        *add("LearningRateMonitor"),
        *add("ThroughputMonitor", f"batch_size_fn={__name__}.size"),
        *add("LambdaCallback"),
        *add("RichModelSummary"),
        *add("RichProgressBar"),
        *add("ModelCheckpoint", "train_time_interval=00:00:00:01"),
    ],
    "profiler": ["--trainer.profiler=advanced", *add("ModelSummary"), *add("TQDMProgressBar")],
    "step": [*add("ModelCheckpoint", "every_n_train_steps=3"), "--trainer.detect_anomaly=true"],
}


@pytest.mark.parametrize("options", TOGETHER.values(), ids=TOGETHER)
def test_a_compression(options, tmp_path, unet, facades):
    main([*tiny.compression(tmp_path, unet), *facades, *options])
    content = tiny.read(tiny.last(tmp_path))
    assert (content["epoch"], content["gancompress"]["phase"]) == (3, "finetune")
    assert "student.generator.model.model.0.weight" in content["state_dict"]


@pytest.mark.parametrize("options", TOGETHER.values(), ids=TOGETHER)
def test_a_teacher(options, tmp_path, facades):
    main([*tiny.teacher(tmp_path), *facades, *options])
    assert tiny.read(tiny.last(tmp_path))["epoch"] == 1
