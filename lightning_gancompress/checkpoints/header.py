"""The header of this project's training checkpoints: the networks in them and the options of their run.

A training checkpoint is an ordinary Lightning checkpoint with one more entry, `gancompress`, of plain types.
The tensors of a network are in its "state_dict" under a prefix such as "student.generator" and a dot. In the
search the student has all channels, and "sides.generator.masks.mask" holds the mask of all generators.
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
    """Options of a search, which can't change once the fine-tuning has begun.

    Attributes:
        policy: Class name of the pruning policy.
        epochs: Length of the search; its end is the border.
        budgets: Configured budgets by side: fractions of the teacher's MACs, or numbers such as `2.4G`.
        convention: How MACs are counted.
        min_channels: Channels that every group keeps.
        channel_multiple: Widths of the small networks are multiples of it.
        student_weights: Weights that the small networks begin with: `inherited` or `fresh`.
    """

    policy: str
    epochs: int
    budgets: dict[Side, float | str]
    convention: str
    min_channels: int
    channel_multiple: int
    student_weights: str

    def beside(self, configured: Search) -> list[tuple[str, Any, Any]]:
        """Name of each option, its value here, and its value in `configured`."""
        names = {Side.GENERATOR: "model.budget", Side.DISCRIMINATOR: "model.discriminator_budget"}
        budgets = [(names[side], self.budgets[side], configured.budgets[side]) for side in Side]
        options = {
            "trainer.callbacks.search_epochs": "epochs",
            "model.macs": "convention",
            "model.min_channels": "min_channels",
            "model.channel_multiple": "channel_multiple",
            "model.student_weights": "student_weights",
        }
        others = [(option, vars(self)[name], vars(configured)[name]) for option, name in options.items()]
        return [*budgets, *others]


@dataclass(frozen=True)
class Header:
    """The header of a training checkpoint.

    Attributes:
        kind: Kind of the module that wrote it: "teacher" or "compression".
        phase: "teacher", "search" or "finetune".
        networks: How to rebuild each network, by prefix.
        preprocessing: How images become the generator's input, in plain types.
        compressed: Roles of the generators that are compressed, measured and saved.
        partner: Whether other generators are `trained`, `frozen` or `left_out`; empty for a teacher.
        sides: In the search, the roles that share one mask, by side.
        ignored_layers: Layers that are not pruned, by side.
        search: Options of the search; None for a teacher, and for files of releases that did not record it.
        versions: Versions of the packages that wrote it, by name.
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
        """Check that the checkpoint is of a compression of these generators.

        Args:
            compressed: Roles that the configured task compresses.
            path: Path of the checkpoint, for the message.
            exactly: Whether they must be the same: a resumed run can't drop a direction, an evaluation can.

        Raises:
            UserError: The checkpoint is of other generators.
        """
        missing = set(compressed) - set(self.compressed)
        if missing or (exactly and tuple(compressed) != self.compressed):
            raise UserError(
                f"ckpt_path: {path} is of a compression of {' and '.join(self.compressed)}, but the task "
                f"wants {' and '.join(compressed)}: give the task that it was made with."
            )

    def require_networks(self, owner: str, path: Path) -> None:
        """Raise a UserError unless it describes the compressed generators of "teacher" or "student"."""
        for prefix in (f"{owner}.{role}" for role in self.compressed):
            if prefix not in self.networks:
                raise UserError(
                    f"{path} is damaged, its header does not describe {prefix}: copy it again, or go back to "
                    "an earlier checkpoint."
                )

    def require_same_run(self, partner: str, configured: Search | None, path: Path) -> None:
        """Check that a resumed compression changes no option that can't change any more.

        Args:
            partner: Configured value of `model.partner`.
            configured: Configured options of the search; None without a policy.
            path: Path of the checkpoint, for the message.

        Raises:
            UserError: An option has changed; the message names it with its old and its new value.
        """
        options = [("model.partner", self.partner or partner, partner)]
        if configured is not None and self.phase == "search" and configured.epochs == 0:
            raise UserError(
                f"ckpt_path: {path} is in the midst of a search, but {configured.policy} does not search; "
                "resume with the policy that began it."
            )
        if configured is not None and self.search is not None:
            options.append(("trainer.callbacks", self.search.policy, configured.policy))
            if self.phase == "finetune":
                options += self.search.beside(configured)
        for option, was, now in options:
            if was != now and str(was) != str(now):  # 1 and 1.0 are equal, and so are 0.1 and "0.1"
                raise UserError(
                    f"{option}: {now} comes too late, {path} began with {was}: go on with that, or begin "
                    "anew."
                )

    def to_dict(self) -> dict[str, Any]:
        """The entry of a checkpoint, in plain types; `of` reads it."""
        entry: dict[str, Any] = {
            "version": VERSION,
            "kind": self.kind,
            "phase": self.phase,
            "networks": {prefix: spec.to_dict() for prefix, spec in self.networks.items()},
            "preprocessing": self.preprocessing,
            "wanted": [str(role) for role in self.compressed],
            "versions": self.versions,
        }
        if self.kind == "compression":
            entry |= {
                "partner": self.partner,
                "sides": {str(side): [str(role) for role in roles] for side, roles in self.sides.items()},
                "ignored_layers": {str(side): list(names) for side, names in self.ignored_layers.items()},
            }
        if self.search is not None:
            budgets = {str(side): budget for side, budget in self.search.budgets.items()}
            entry["search"] = {**vars(self.search), "budgets": budgets}
        return entry

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Header:
        """The header in the `content` of the file `path`.

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
    return Search(
        policy=str(written["policy"]),
        epochs=int(written["epochs"]),
        budgets={Side(side): budget for side, budget in written["budgets"].items()},
        convention=str(written["convention"]),
        min_channels=int(written["min_channels"]),
        channel_multiple=int(written["channel_multiple"]),
        student_weights=str(written["student_weights"]),
    )


def is_training_checkpoint(content: Any) -> bool:
    """Whether the content of a file is that of a training checkpoint of this project."""
    return isinstance(content, Mapping) and "state_dict" in content and KEY in content


def kind_of(content: Mapping[str, Any]) -> str:
    """The kind of module that wrote a checkpoint, as it says; empty for checkpoints of other projects."""
    written = content.get(KEY)
    return str(written.get("kind", "")) if isinstance(written, Mapping) else ""
