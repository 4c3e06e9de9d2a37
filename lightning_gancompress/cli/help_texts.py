"""What `--help` shows: own options first, Lightning's last and in a sentence each."""

from __future__ import annotations

import argparse
import inspect
import re

from lightning.pytorch.cli import LightningArgumentParser

from lightning_gancompress.lightning_internals import arrange_help, options_of
from lightning_gancompress.trainer import Trainer

DESCRIPTION = """Compress image-to-image GANs to a compute budget by preserving their local density structure.
Each command has a --help of its own."""
# after the name of the command; each is read by the tests
EXAMPLES = {
    "fit": "--config pix2pix_facades.yaml --model.budget 600M",
    "validate": "--ckpt_path runs/pix2pix_facades/checkpoints/last.ckpt",
    "test": "--ckpt_path runs/pix2pix_facades/checkpoints/best.ckpt",
    "predict": "--model runs/pix2pix_facades/generator.safetensors --input photo.jpg",
    "export": "--ckpt_path runs/pix2pix_facades/generator.pth",
    "profile": "--ckpt_path runs/pix2pix_facades/checkpoints/last.ckpt",
    "compare": "--config compare_facades_128.yaml --jobs 2",
    "report": "--folder runs/pix2pix_facades",
}
_DEVICES = ("accelerator", "devices", "num_nodes", "strategy")
_HELP = {
    "ckpt_path": "Training checkpoint to go on from, or to evaluate, such as RUN/checkpoints/last.ckpt; its "
    "settings are read as well. `best` and `last` are those of trainer.default_root_dir.",
    "seed_everything": "Seed of all random numbers; true draws one, false sets none.",
    "trainer": "YAML file with options of the trainer alone.",
    "model": "Class of the module and, after it, its options: --model.budget=600M.",
    "data": "Class of the data module and, after it, its options: --data.root=FOLDER.",
}
_MODEL = "what is trained or compressed; --model.help CompressionModule shows its options"
_DATA = "the images; --data.help PairedDataModule shows its options"
_CALLBACKS = "the run; --trainer.callbacks.help CollaborativePruning shows the options of a policy"


def arrange_options(parser: LightningArgumentParser, command: str) -> None:
    """Put the options of a command into the order in which a user needs them.

    Options of the trainer that a command doesn't use stay out of sight: configurations may hold them.
    """
    options = options_of(parser)
    general = [option for option in options if _root(option) in ("config", "help", "print_config")]
    general += [option for option in options if option.option_strings[:1] in (["--trust"], ["--debug"])]
    rest = [option for option in options if option not in general]
    for option in rest:
        if option.dest in _HELP and "trainer" in {_root(other) for other in rest}:
            option.help = _HELP[option.dest]
    usage = "".join(f" {_words(option)}" for option in rest if option.required or _stands_alone(option))
    parser.usage = f"gancompress {command}{usage} [--config FILE.yaml] [--OPTION VALUE] ..."
    if command in EXAMPLES:
        parser.epilog = f"Example: gancompress {command} {EXAMPLES[command]}"
    if all(_root(option) != "trainer" for option in rest):
        arrange_help(parser, {"options": rest, "options of all commands": general})
        return
    own = inspect.signature(Trainer).parameters
    trainer = [option for option in rest if _root(option) == "trainer"]
    ours = [o for o in trainer if o.dest == "trainer" or o.dest.split(".")[1] in {*own, *_DEVICES}]
    own_of_profile = ("size", "json", "advice")
    first = [o for o in rest if o.dest in ("ckpt_path", "seed_everything", *own_of_profile)]
    parts = {part: [o for o in rest if _root(o) == part] for part in ("model", "data")}
    lightnings = [o for o in rest if o not in (*ours, *first, *parts["model"], *parts["data"])]
    for option in (*lightnings, *(o for o in ours if o.dest.split(".")[-1] in _DEVICES)):
        option.help = first_sentence(option.help or "")
    if command == "profile":
        for option in (*ours, *lightnings):
            option.help = argparse.SUPPRESS
    general.sort(key=lambda option: option.dest != "config")
    sections = {"options": [*general[:1], *first, *general[1:]], _MODEL: parts["model"], _DATA: parts["data"]}
    arrange_help(parser, {**sections, _CALLBACKS: ours, "Lightning's own": lightnings})


def first_sentence(text: str) -> str:
    """The first sentence of a help text, without markup."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", " ".join(text.split())).replace("``", "")
    return re.split(r"(?<=[a-z)\]\"])\. ", text, maxsplit=1)[0].rstrip(".") + "." if text else ""


def _words(option: argparse.Action) -> str:
    """An option in the usage: `--model MODEL`, `DIR`, or `[DIR]` where it may be left out."""
    value = option.metavar or _root(option).upper()
    words = str(value) if _stands_alone(option) else f"{option.option_strings[0]} {value}"
    return words if option.required else f"[{words}]"


def _stands_alone(option: argparse.Action) -> bool:
    return not option.option_strings


def _root(option: argparse.Action) -> str:
    return option.dest.partition(".")[0]
