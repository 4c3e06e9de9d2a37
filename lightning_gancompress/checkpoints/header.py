"""The header of this project's training checkpoints: what is in them, and what their run has decided.

Such a file is an ordinary Lightning checkpoint with one more entry, `gancompress`, of plain types. The
tensors of the network `prefix`, such as "student.generator", lie in its "state_dict" under `prefix` and a
dot. In the search the student is still whole, and "sides.generator.masks.mask" says which channels of all
networks of that side stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.tasks import Role, Side

KEY = "gancompress"
VERSION = 1
PHASES = {"teacher": ("teacher",), "compression": ("search", "finetune")}


@dataclass(frozen=True)
class Search:
    """What a compression has decided by its border: these options can't change any more.

    Attributes:
        policy: Class of the policy that chose the channels.
        epochs: Length of the search; its end is the border.
        budgets: As they were asked for, by side.
        convention: How MACs are counted.
    """

    policy: str
    epochs: int
    budgets: dict[Side, float | str]
    convention: str

    def changes(self, asked: Search) -> list[tuple[str, Any, Any]]:
        """Options that the border has settled: name, value, and value that is asked for now."""
        names = {Side.GENERATOR: "model.budget", Side.DISCRIMINATOR: "model.discriminator_budget"}
        budgets = [(names[side], self.budgets[side], asked.budgets[side]) for side in Side]
        lengths = ("search_epochs", self.epochs, asked.epochs)
        return [lengths, *budgets, ("model.macs", self.convention, asked.convention)]


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    Attributes:
        kind: Of the module that wrote it: "teacher" or "compression".
        phase: "teacher", "search" or "finetune".
        networks: What rebuilds each network, by prefix.
        preprocessing: How images become the generator's input, in plain types.
        compressed: The generators that are compressed, measured and saved.
        partner: What becomes of other generators; empty for a teacher.
        sides: In the search, the networks under one mask, by side.
        ignored_layers: Layers that stay whole, by side.
        search: What is decided; None for a teacher, and for files of releases that did not record it.
        versions: Of the packages that wrote it.
    """

    kind: str
    phase: str
    networks: dict[str, NetworkSpec]
    preprocessing: dict[str, Any]
    compressed: tuple[Role, ...] = (Role("generator"),)
    partner: str = ""
    sides: dict[Side, list[Role]] = field(default_factory=dict)
    ignored_layers: dict[Side, list[str]] = field(default_factory=dict)
    search: Search | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def require_compressed(self, compressed: Sequence[Role], path: Path, exactly: bool) -> None:
        """One of two directions can be looked at alone; a run goes on with what it began.

        Args:
            compressed: Generators that are asked for.
            path: Of the checkpoint.
            exactly: Whether they must be all that the checkpoint has.

        Raises:
            UserError: They are others.
        """
        missing = set(compressed) - set(self.compressed)
        if missing or (exactly and tuple(compressed) != self.compressed):
            raise UserError(
                f"ckpt_path: {path} is of a compression of {' and '.join(self.compressed)}, but the task "
                f"wants {' and '.join(compressed)}: give the task that it was made with."
            )

    def require_same_run(self, partner: str, asked: Search | None, path: Path) -> None:
        """Refuse options of a resumed compression that come too late.

        Args:
            partner: As it is asked for now.
            asked: What is asked of the search now.
            path: Of the checkpoint.

        Raises:
            UserError: Naming the option, what it was, and what it is now.
        """
        late = [("model.partner", self.partner or partner, partner)]
        if asked is not None and self.phase == "search" and asked.epochs == 0:
            raise UserError(
                f"ckpt_path: {path} is in the midst of a search, but {asked.policy} does not search; "
                "resume with the policy that began it."
            )
        if asked is not None and self.search is not None:
            late.append(("trainer.callbacks", self.search.policy, asked.policy))
            if self.phase == "finetune":
                late += self.search.changes(asked)
        for option, was, now in late:
            if str(was) != str(now):
                raise UserError(
                    f"{option}: {now} comes too late, {path} began with {was}: go on with that, or begin "
                    "anew."
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a checkpoint; `of` reads them."""
        found: dict[str, Any] = {
            "version": VERSION,
            "kind": self.kind,
            "phase": self.phase,
            "networks": {prefix: spec.to_dict() for prefix, spec in self.networks.items()},
            "preprocessing": self.preprocessing,
            "wanted": [str(role) for role in self.compressed],
            "versions": self.versions,
        }
        if self.kind == "compression":
            found |= {
                "partner": self.partner,
                "sides": {str(side): [str(role) for role in roles] for side, roles in self.sides.items()},
                "ignored_layers": {str(side): list(names) for side, names in self.ignored_layers.items()},
            }
        if self.search is not None:
            budgets = {str(side): budget for side, budget in self.search.budgets.items()}
            found["search"] = {**vars(self.search), "budgets": budgets}
        return found

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Header:
        """The header in the `content` that the file `path` had.

        Raises:
            UserError: The file is no training checkpoint of this project, or its header is damaged.
        """
        if not is_training_checkpoint(content):
            raise UserError(f"{path} is no training checkpoint of this project: it has no entry {KEY!r}.")
        written = content[KEY]
        version = written.get("version") if isinstance(written, Mapping) else None
        if version != VERSION:
            raise UserError(
                f"{path} has format version {version}, and this release reads version {VERSION}: "
                "install the release that wrote it."
            )
        try:
            return cls._read(written)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path} is damaged, its header can't be read ({error!r}): copy it again, or go back to an "
                "earlier checkpoint."
            ) from error

    @classmethod
    def _read(cls, written: Mapping[str, Any]) -> Header:
        kind, phase = written["kind"], written["phase"]
        if phase not in PHASES[kind]:
            raise ValueError(f"phase {phase!r} of kind {kind!r}")
        search = written.get("search")
        return cls(
            kind,
            phase,
            {str(prefix): NetworkSpec.from_dict(spec) for prefix, spec in written["networks"].items()},
            dict(written["preprocessing"]),
            tuple(map(Role, written.get("wanted", ["generator"]))),
            str(written.get("partner", "")),
            {Side(s): list(map(Role, roles)) for s, roles in written.get("sides", {}).items()},
            {Side(s): list(map(str, names)) for s, names in written.get("ignored_layers", {}).items()},
            None if search is None else _read_search(search),
            dict(written.get("versions", {})),
        )


def _read_search(written: Mapping[str, Any]) -> Search:
    budgets = {Side(side): budget for side, budget in written["budgets"].items()}
    return Search(str(written["policy"]), int(written["epochs"]), budgets, str(written["convention"]))


def is_training_checkpoint(content: Any) -> bool:
    """Tell a training checkpoint of this project from other files."""
    return isinstance(content, Mapping) and "state_dict" in content and KEY in content
