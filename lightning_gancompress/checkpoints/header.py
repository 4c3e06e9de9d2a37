"""The header of this project's training checkpoints: the networks in them and the options of their run.

A training checkpoint is an ordinary Lightning checkpoint with one more entry, `gancompress`, of plain types.
The tensors of a network are in its "state_dict" under a prefix such as "student.generator" and a dot. In the
search "sides.generator.left" says which channels of the teacher's generators the student's have, and
"sides.generator.masks.mask" holds the mask of these. Files without the former have all channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_gancompress.checkpoints.files import is_state_dict
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.networks.images import read_preprocessing
from lightning_gancompress.schema import items, shown, texts, typed, whole
from lightning_gancompress.tasks import Role, Side

KEY = "gancompress"
VERSION = 1
Change = tuple[str, Any, Any]  # an option, its value when the run began, and its value now
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
        options: Further options of the policy that are plain values, by name.
        passes: Larger budgets of the generators that the search keeps on its way, the largest first.
    """

    policy: str
    epochs: int
    budgets: dict[Side, float | str]
    convention: str
    min_channels: int
    channel_multiple: int
    student_weights: str
    options: dict[str, Any] = field(default_factory=dict)
    passes: list[float | str] = field(default_factory=list)

    def budget(self, side: Side) -> Any:
        """The budget of a side, or all of them."""
        own = self.budgets[side]
        return [*self.passes, own] if self.passes and side is Side.GENERATOR else own

    def beside(self, configured: Search) -> list[tuple[str, Any, Any]]:
        """Name of each option, its value here, and its value in `configured`."""
        names = {Side.GENERATOR: "model.budget", Side.DISCRIMINATOR: "model.discriminator_budget"}
        budgets = [(names[side], self.budget(side), configured.budget(side)) for side in Side]
        options = {
            "trainer.callbacks.search_epochs": "epochs",
            "model.macs": "convention",
            "model.min_channels": "min_channels",
            "model.channel_multiple": "channel_multiple",
            "model.student_weights": "student_weights",
        }
        others = [(option, vars(self)[name], vars(configured)[name]) for option, name in options.items()]
        own = [
            (f"trainer.callbacks.{name}", value, configured.options[name])
            for name, value in self.options.items()
            if name in configured.options
        ]
        return [*budgets, *others, *own]


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
        began: Epoch in which the fine-tuning began; None before it, and for files of releases that did not
            record it, where it is the length of the search. With the phase "search" the file stands at the
            border: the small networks are what its masks keep.
        versions: Versions of the packages that wrote it, by name.
        seed: Seed of the run; None for files of releases that did not record it.
        images: Digest of the training images; empty if it is not known.
        epoch: Of an epoch in progress, options by which its batches are counted.
        precision: The trainer's precision; empty for files of releases that did not record it.
        passed: In the search, the larger budgets that it has kept.
        data_seed: Seed of order and augmentation of the images; None where the data have none, and for files
            of releases that did not record it.
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
    began: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    images: str = ""
    epoch: dict[str, Any] = field(default_factory=dict)
    precision: str = ""
    passed: list[float | str] = field(default_factory=list)
    data_seed: int | None = None

    @property
    def at_border(self) -> bool:
        """Whether the search of the file is over, and the fine-tuning has not begun."""
        return self.phase == "search" and self.began is not None

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

    def require_same_search(self, partner: str, configured: Search | None, path: Path) -> None:
        """Check that a resumed compression changes no option of the search that can't change any more.

        Args:
            partner: Configured value of `model.partner`.
            configured: Configured options of the search; None without a policy.
            path: Path of the checkpoint, for the message.

        Raises:
            UserError: An option has changed; the message names it with its old and its new value.
        """
        options: list[Change] = [("model.partner", self.partner or partner, partner)]
        searching = self.phase == "search" and not self.at_border
        if configured is not None and searching and configured.epochs == 0:
            raise UserError(
                f"ckpt_path: {path} is in the midst of a search, but {configured.policy} does not search; "
                "resume with the policy that began it."
            )
        if configured is not None and self.search is not None:
            options.append(("trainer.callbacks", self.search.policy, configured.policy))
            if not searching:
                options += self.search.beside(configured)
            elif self.search.passes or configured.passes:
                side = Side.GENERATOR
                options.append(("model.budget", self.search.budget(side), configured.budget(side)))
        refuse_late(options, path)

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
        known: dict[str, Any] = {"seed": self.seed, "training_images": self.images, "epoch": self.epoch}
        known |= {"began": self.began, "precision": self.precision, "passed": self.passed}
        known |= {"data_seed": self.data_seed}
        entry |= {name: value for name, value in known.items() if value not in (None, "", {}, [])}
        if self.kind == "compression":
            entry |= {
                "partner": self.partner,
                "sides": {str(side): [str(role) for role in roles] for side, roles in self.sides.items()},
                "ignored_layers": {str(side): list(names) for side, names in self.ignored_layers.items()},
            }
        if self.search is not None:
            budgets = {str(side): budget for side, budget in self.search.budgets.items()}
            entry["search"] = {**vars(self.search), "budgets": budgets}
            if not self.search.passes:
                del entry["search"]["passes"]
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
        if type(version) is not int or version != VERSION:  # a tensor in its place can't be compared
            raise UserError(
                f"{path} has format version {shown(version)}, and this release reads version {VERSION}: "
                "install the release that wrote it."
            )
        try:
            if not is_state_dict(content["state_dict"]):
                raise ValueError("state_dict holds more than tensors by name")
            return cls._read(dict(items(written, KEY)))
        except (ValueError, UserError) as error:
            raise UserError(
                f"{path} is damaged, its header can't be read ({error}): copy it again, or go back to an "
                "earlier checkpoint."
            ) from error

    @classmethod
    def _read(cls, written: Mapping[str, Any]) -> Header:
        kind, phase = typed(written.get("kind"), str, "kind"), typed(written.get("phase"), str, "phase")
        if phase not in PHASES.get(kind, ()):
            raise ValueError(f"phase {shown(phase)} of kind {shown(kind)}")
        search = written.get("search")
        networks = dict(items(written.get("networks"), "networks"))
        for prefix in networks:
            Role(prefix.partition(".")[2])
        versions = dict(items(written.get("versions", {}), "versions"))
        return cls(
            kind,
            phase,
            {prefix: NetworkSpec.from_dict(spec) for prefix, spec in networks.items()},
            read_preprocessing(written.get("preprocessing")),
            tuple(map(Role, texts(written.get("wanted", ["generator"]), "wanted"))),
            typed(written.get("partner", ""), str, "partner"),
            {side: list(map(Role, roles)) for side, roles in by_side(written, "sides").items()},
            by_side(written, "ignored_layers"),
            None if search is None else _read_search(dict(items(search, "search"))),
            _number(written.get("began"), "began"),
            {name: typed(version, str, f"versions.{name}") for name, version in versions.items()},
            _number(written.get("seed"), "seed"),
            # not `images`, as earlier releases called a digest that does not tell sources from targets
            typed(written.get("training_images", ""), str, "training_images"),
            dict(items(written.get("epoch", {}), "epoch")),
            typed(written.get("precision", ""), str, "precision"),
            _budgets(written.get("passed", []), "passed"),
            _number(written.get("data_seed"), "data_seed"),
        )


def refuse_late(changes: Iterable[Change], path: Path) -> None:
    """Raise a `UserError` at the first option whose value now is not that with which the run began.

    Args:
        changes: Options that can't change any more.
        path: Path of the checkpoint, for the message.
    """
    for option, was, now in changes:
        if was != now and str(was) != str(now):  # 1 and 1.0 are equal, and so are 0.1 and "0.1"
            raise UserError(
                f"{option}: {now} comes too late, {path} began with {was}: go on with that, or begin anew."
            )


def by_side(written: Mapping[str, Any], name: str) -> dict[Side, list[str]]:
    """A table of lists of texts by side."""
    table = dict(items(written.get(name, {}), name))
    return {Side(side): texts(entries, f"{name}.{side}") for side, entries in table.items()}


def _number(written: Any, where: str) -> int | None:
    return None if written is None else whole(written, where, 0, 2**64 - 1)


def _budgets(written: Any, where: str) -> list[float | str]:
    return [typed(value, float | str, where) for value in typed(written, list, where)]


def _read_search(written: Mapping[str, Any]) -> Search:
    budgets = dict(items(written.get("budgets"), "search.budgets"))
    if budgets.keys() != {str(side) for side in Side}:
        raise ValueError("search.budgets is not one of each side")
    return Search(
        policy=typed(written.get("policy"), str, "search.policy"),
        epochs=whole(written.get("epochs"), "search.epochs", 0, 10**9),
        budgets={Side(side): typed(value, float | str, "search.budgets") for side, value in budgets.items()},
        convention=typed(written.get("convention"), str, "search.convention"),
        min_channels=whole(written.get("min_channels"), "search.min_channels", 0, 10**9),
        channel_multiple=whole(written.get("channel_multiple"), "search.channel_multiple", 1, 10**9),
        student_weights=typed(written.get("student_weights"), str, "search.student_weights"),
        options=dict(items(written.get("options", {}), "search.options")),
        passes=_budgets(written.get("passes", []), "search.passes"),
    )


def is_training_checkpoint(content: Any) -> bool:
    """Whether the content of a file is that of a training checkpoint of this project."""
    return isinstance(content, Mapping) and "state_dict" in content and KEY in content


def kind_of(content: Mapping[str, Any]) -> str:
    """The kind of module that wrote a checkpoint, as it says; empty for checkpoints of other projects."""
    written = content.get(KEY)
    return str(written.get("kind", "")) if isinstance(written, Mapping) else ""
