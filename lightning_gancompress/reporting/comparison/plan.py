"""The runs of a comparison, their arguments and their state."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_gancompress.errors import UserError
from lightning_gancompress.files import replacing
from lightning_gancompress.leaves import leaves
from lightning_gancompress.reporting.comparison.results import Place
from lightning_gancompress.shipped_configs import find_config, read_config

RECORD, LOG = "command.json", "log.txt"
EPOCH = re.compile(r"^epoch \d+(?:/\d+)?", re.MULTILINE)  # of ProgressLines


@dataclass(frozen=True)
class Run:
    """One experiment with one seed, and at one budget if there are several.

    Attributes:
        place: Name, budget and seed.
        folder: Folder of the run.
        fit: Arguments of `fit`.
        test: Arguments of `test`.
        settings: Arguments of both commands and the content of their configurations, read at construction.
    """

    place: Place
    folder: Path
    fit: tuple[str, ...]
    test: tuple[str, ...]
    settings: dict[str, Any] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", {"fit": settings_of(self.fit), "test": settings_of(self.test)})

    @property
    def last(self) -> Path:
        """The checkpoint from which the run is resumed."""
        return self.folder / "checkpoints" / "last.ckpt"

    def command(self, stage: str) -> list[str]:
        """Arguments of the command line for `fit`, its continuation `resume`, or `test`."""
        arguments = ["test", *self.test] if stage == "test" else ["fit", *self.fit]
        return [*arguments, *([] if stage == "fit" else [f"--ckpt_path={self.last}"])]

    def stage(self) -> str:
        """The next command: `fit`, `resume` or `test`; `done` for none.

        Raises:
            UserError: The folder holds a run with other settings, or one that no comparison has made.
        """
        record = self._record()
        if record is None:
            if self.last.exists() or self.results():
                raise UserError(
                    f"{self.folder} holds a run of unknown settings (it has no {RECORD}): remove it, choose "
                    "another output, or tabulate what is there with --only_report=true."
                )
            return "fit"
        now = self.settings["fit"]
        if record["fit"] != now:
            raise UserError(
                f"{self.folder} was made with other settings ({changes(record['fit'], now)}): remove it to "
                "run it again, take back the change, or choose another output."
            )
        if "fit" not in record["finished"]:
            return "resume" if self.last.is_file() else "fit"
        tested = "test" in record["finished"] and self.results()
        return "done" if tested and record["test"] == self.settings["test"] else "test"

    def epoch(self) -> str:
        """The last epoch in the log of its training, such as `epoch 12/240`; empty if there is none."""
        try:
            found = EPOCH.findall((self.folder / LOG).read_text(errors="replace"))
        except OSError:
            return ""
        return str(found[-1]) if found else ""

    def results(self) -> list[Path]:
        """Result files of its test."""
        return list((self.folder / "test").glob("results*.json"))

    def note(self, *finished: str) -> None:
        """Record the settings, and which commands have been finished with them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {**self.settings, "finished": finished}
        with replacing(self.folder / RECORD) as draft:
            draft.write_text(json.dumps(content, indent=2) + "\n")

    def _record(self) -> dict[str, Any] | None:
        path = self.folder / RECORD
        try:
            record: dict[str, Any] = json.loads(path.read_bytes())
            return record if {"fit", "test", "finished"} <= record.keys() else None
        except (FileNotFoundError, NotADirectoryError):  # of the latter whoever writes there tells
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read ({error}): remove the folder to run it again.") from error


def settings_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Arguments and the current content of the configurations among them."""
    files = [argument for argument in arguments if argument.endswith((".yaml", ".yml"))]
    configs = {file: _content(file) for file in files}
    return {"arguments": list(arguments), "configs": json.loads(json.dumps(configs, default=str))}


def _content(file: str) -> Any:
    try:
        return yaml.safe_load(read_config(file))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file} can't be read ({' '.join(str(error).split())}): mend it.") from error


def plan(
    output: Path,
    experiments: Mapping[str, Sequence[str] | None],
    *,
    seeds: Sequence[int],
    budgets: Sequence[float | str],
    common: Sequence[str],
    test: Sequence[str],
    seed_options: Sequence[str],
) -> list[Run]:
    """All runs of a comparison; the first seed of every experiment comes before the second seeds.

    Arguments are configurations (`*.yaml`) or options (`--key=value`), in which `{seed}` and `{budget}` are
    replaced by those of the run.

    Raises:
        UserError: An argument is neither, a configuration is missing, or a name is no folder name.
    """
    runs = []
    for seed in seeds:
        for budget in map(str, budgets or [""]):
            for name, own in experiments.items():
                place = Place(name, budget, seed)
                if Place.of(place.path) != place or ".." in place.path.parts or place.path.is_absolute():
                    raise UserError(
                        f"experiments has {name!r}, which can't be a folder: choose another name."
                    )
                folder = output / place.path
                given = [*common, *([f"--model.budget={budget}"] if budget else []), *(own or [])]
                given += [f"{option}={seed}" for option in seed_options]
                given = [g.replace("{seed}", str(seed)).replace("{budget}", budget) for g in given]
                fit = (*_arguments(given, name), f"--trainer.default_root_dir={folder}")
                runs.append(Run(place, folder, fit, (*fit, *_arguments(test, "test"))))
    return runs


def _arguments(given: Sequence[str], name: str) -> list[str]:
    """Arguments of the command line, with `--config` before configurations."""
    arguments: list[str] = []
    for argument in given:
        if argument.endswith((".yaml", ".yml")) and not argument.startswith("-"):
            find_config(argument)
            arguments += ["--config", argument]
        elif argument.startswith("--") and "=" in argument:
            arguments.append(argument)
        else:
            raise UserError(
                f"{name} has {argument!r}: give names of .yaml files and options such as --key=value."
            )
    return arguments


def changes(was: dict[str, Any], now: dict[str, Any]) -> str:
    """The first differences between two settings, as text."""
    gone = [word for word in was["arguments"] if word not in now["arguments"]]
    new = [word for word in now["arguments"] if word not in was["arguments"]]
    differences = (
        [f"{' '.join(gone) or 'nothing'} is now {' '.join(new) or 'nothing'}"] if gone or new else []
    )
    old, content = dict(leaves(was["configs"])), dict(leaves(now["configs"]))
    differences += [
        f"{key} was {old.get(key, 'not set')} and is now {content.get(key, 'not set')}"
        for key in old | content
        if old.get(key) != content.get(key)
    ]
    return "; ".join(differences[:3]) or "the order of the options"
