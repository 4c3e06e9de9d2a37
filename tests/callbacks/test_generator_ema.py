"""The moving average of the generators' weights: what it is, who uses it, how it goes on."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lightning_gancompress import UserError, compress, load_generator
from lightning_gancompress.callbacks import GeneratorEMA, UniformWidth
from lightning_gancompress.cli import main
from lightning_gancompress.trainer import Trainer

SOURCE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EMA = ["--trainer.callbacks+=GeneratorEMA", "--trainer.callbacks.decay=0.8"]


class Steps(Callback):
    """Keeps the generator's weights after every step of its last phase, and what validations saw."""

    phase = ""
    weights: list[dict[str, Tensor]]
    validated: list[dict[str, Tensor]]

    def __init__(self) -> None:
        Steps.weights, Steps.validated, Steps.phase = [], [], ""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.phase.name != Steps.phase:
            Steps.phase, Steps.weights, Steps.validated = pl_module.phase.name, [], []
        Steps.weights.append(generator(pl_module))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        Steps.validated.append(generator(pl_module))


NOTED = [f"--trainer.callbacks+={__name__}.Steps"]


def generator(module: Any) -> dict[str, Tensor]:
    *_, network = module.generators(module.task.compressed[0]).values()
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def averaged(weights: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """The average as the docstring defines it."""
    average = dict(weights[0])
    for step, current in enumerate(weights):
        share = min(decay, (1 + step) / (10 + step))
        for name, tensor in current.items():
            floats = tensor.is_floating_point()
            average[name] = share * average[name] + (1 - share) * tensor if floats else tensor
    return average


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-5)


def saved(path: Path, prefix: str, trained: bool = False) -> dict[str, Tensor]:
    """The generator's tensors in a checkpoint: averages, or those that were trained."""
    content = tiny.read(path)
    state = content["averages"]["trained"] if trained else content["state_dict"]
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def run(tmp_path_factory, unet, facades):
    """The folder of a compression whose fine-tuning is averaged, and what happened in it."""
    folder = tmp_path_factory.mktemp("run")
    main([*tiny.compression(folder, unet), *facades, *EMA, *NOTED])
    return folder, Steps.weights, Steps.validated


def test_the_average_is_that_of_the_steps_after_the_border(run):
    folder, weights, _ = run
    assert len(weights) == 8
    assert_close(saved(tiny.last(folder), "student.generator."), averaged(weights, 0.8))
    assert_close(saved(tiny.last(folder), "student.generator.", trained=True), weights[-1])
    assert tiny.read(tiny.last(folder))["averages"]["steps"] == 8


def test_validation_sees_the_average_and_training_does_not(run, tmp_path, unet, facades):
    _, weights, validated = run
    assert_close(validated[-1], averaged(weights, 0.8))
    main([*tiny.compression(tmp_path, unet), *facades, *NOTED])
    for one, other in zip(weights, Steps.weights, strict=True):
        tiny.assert_equal(one, other)


def test_whatever_reads_the_run_has_the_average(run):
    folder, weights, _ = run
    small = load_generator(folder / "generator.pth")
    assert_close(small.state_dict(), averaged(weights, 0.8))
    assert torch.equal(load_generator(tiny.last(folder))(SOURCE), small(SOURCE))
    assert tiny.read(folder / "checkpoints" / "best.ckpt")["averages"]["steps"] in (4, 8)


@pytest.mark.parametrize("options", [["--trainer.max_epochs=1"], ["--trainer.max_epochs=3"]], ids=str)
def test_a_resumed_run_equals_one_that_nothing_interrupts(options, run, tmp_path, unet, facades):
    args = [*tiny.compression(tmp_path, unet), *facades, *EMA, *NOTED]
    main([*args, *options])
    main([*args, "--ckpt_path=last"])
    tiny.assert_same_end(tmp_path, run[0])
    one, other = (tiny.read(tiny.last(folder))["averages"] for folder in (tmp_path, run[0]))
    assert one["steps"] == other["steps"]
    tiny.assert_equal(one["trained"], other["trained"])


def test_killed_within_an_epoch(run, tmp_path, unet, facades):
    args = [*tiny.compression(tmp_path, unet), *facades, *EMA, *tiny.EVERY_STEP]
    assert tiny.Fork([*args, *tiny.kill(3, 2)], tmp_path / "log").wait() == -9
    main([*args, "--ckpt_path=last"])
    tiny.assert_same_end(tmp_path, run[0])


def test_a_run_that_goes_on_without_the_average(run, tmp_path, unet, facades):
    args = [*tiny.compression(tmp_path, unet), *facades]
    main([*args, *EMA, "--trainer.max_epochs=3"])
    with pytest.warns(UserWarning, match="add GeneratorEMA"):
        main([*args, "--ckpt_path=last"])
    assert "averages" not in tiny.read(tiny.last(tmp_path))
    assert_close(saved(tiny.last(tmp_path), "student.generator."), run[1][-1])


def test_a_teacher_and_what_is_compressed_from_it(tmp_path, facades):
    main([*tiny.teacher(tmp_path / "teacher", tiny.RESNET), *facades, *EMA, *NOTED])
    path = tiny.last(tmp_path / "teacher")
    assert_close(saved(path, "networks.generator."), averaged(Steps.weights, 0.8))
    main([*tiny.compression(tmp_path / "run", path, "UniformWidth"), *facades, "--trainer.max_epochs=1"])
    teacher = load_generator(tiny.last(tmp_path / "run"), network="teacher.generator")
    assert torch.equal(teacher(SOURCE), load_generator(path)(SOURCE))


def test_a_checkpoint_of_weights_alone_has_the_average(run, tmp_path, unet, facades):
    only = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_weights_only=true"]
    main([*tiny.compression(tmp_path, unet), *facades, *EMA, *only])
    path = next(p for p in (tmp_path / "checkpoints").iterdir() if p.stem not in ("best", "last"))
    assert_close(saved(path, "student.generator."), averaged(run[1], 0.8))


def test_both_directions(tmp_path, cyclegan, domains):
    args = [*tiny.compression(tmp_path, cyclegan, "UniformWidth"), *domains, *tiny.cyclegan()]
    main([*args, *EMA])
    trained = tiny.read(tiny.last(tmp_path))["averages"]["trained"]
    assert {name.split(".")[1] for name in trained} == {"generator_AtoB", "generator_BtoA"}


class Stumbles(Callback):
    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("as it happens")


def test_an_exception_in_a_validation_leaves_the_trained_weights(tmp_path, unet, facades):
    safety = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_on_exception=true"]
    with pytest.raises(RuntimeError, match="as it happens"):
        main(
            [
                *tiny.compression(tmp_path, unet, "UniformWidth"),
                *facades,
                *EMA,
                *NOTED,
                *safety,
                f"--trainer.callbacks+={__name__}.Stumbles",
            ]
        )
    path = next(p for p in (tmp_path / "checkpoints").glob("epoch=1*"))
    assert_close(saved(path, "student.generator.", trained=True), Steps.weights[-1])


def test_compress_returns_the_average(tmp_path):
    images = [{"source": torch.rand(3, 16, 16) * 2 - 1} for _ in range(4)]
    torch.manual_seed(0)
    options: dict[str, Any] = {"epochs": 1, "decay_epochs": 0, "distill_weight": 10, "accelerator": "cpu"}
    small = compress(
        tiny.Own(8),
        data=images,
        budget=0.5,
        policy=UniformWidth(),
        folder=tmp_path,
        logger=False,
        callbacks=[GeneratorEMA(0.5), Steps()],
        **options,
    )
    assert_close(small.state_dict(), averaged(Steps.weights, 0.5))


def test_it_averages_modules_of_this_project_alone(tmp_path):
    from lightning.pytorch.demos.boring_classes import BoringModel

    trainer = Trainer(default_root_dir=tmp_path, callbacks=GeneratorEMA(), accelerator="cpu", logger=False)
    with pytest.raises(UserError, match="not a BoringModel"):
        trainer.fit(BoringModel())
