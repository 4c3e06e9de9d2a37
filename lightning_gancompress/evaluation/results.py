"""The results of a test, typed and versioned: the schema of `results.json`. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.metrics import (
    BUILT_IN,
    BYTES,
    MACS_EXACT,
    MACS_LITERATURE,
    METRICS,
    PARAMS,
    Metric,
    register,
    registered,
)
from lightning_gancompress.leaves import leaves
from lightning_gancompress.schema import build, is_number, items, read_json, typed, whole

COSTS = (MACS_EXACT, MACS_LITERATURE, PARAMS, BYTES)
VERSION = 1  # of results.json; files without a version are older and have the same schema
Json = dict[str, Any]


@dataclass(frozen=True)
class LatencyResult:
    """Milliseconds of one image: median, tenth and ninetieth percentile over `repetitions` calls."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    repetitions: int


@dataclass(frozen=True)
class RuntimeFacts:
    """How the latencies of one runtime were measured.

    Attributes:
        device: Name of the device.
        threads: CPU threads.
        version: Name and version of the runtime.
        speedup: Latency of the teacher divided by that of the student, measured in turn.
        failed: Why latencies could not be measured; None if they were.
    """

    device: str | None = None
    threads: int | None = None
    version: str | None = None
    speedup: float | None = None
    failed: str | None = None

    def to_json(self) -> Json:
        """The fields that are not None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class NetworkResults:
    """The figures of one generator.

    Attributes:
        figures: Figures by name; of a latency the median.
        latencies: Medians and percentiles of the latencies by name.
    """

    figures: dict[str, float] = field(default_factory=dict)
    latencies: dict[str, LatencyResult] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: object, where: str) -> NetworkResults:
        """Read the output of `to_json`. Entries that are neither numbers nor registered are left out.

        Raises:
            ValueError: A registered figure is no number.
        """
        measured: dict[str, float | LatencyResult] = {}
        for key, value in items(data, where):
            if isinstance(value, Mapping) and registered(key):
                measured[key] = build(LatencyResult, value, f"{where}.{key}")
            elif registered(key) or is_number(value):
                measured[key] = typed(value, float, f"{where}.{key}")
                if key in COSTS and not 0 < value < math.inf:
                    raise ValueError(f"{where}.{key} is {value}, not above 0")
        return cls.of(measured)

    @classmethod
    def of(cls, measured: Mapping[str, float | LatencyResult]) -> NetworkResults:
        """Results of the figures and latencies of measures, by name."""
        latencies = {key: value for key, value in measured.items() if isinstance(value, LatencyResult)}
        figures = {k: v.median_ms if isinstance(v, LatencyResult) else v for k, v in measured.items()}
        return cls(figures, latencies)

    def to_json(self) -> Json:
        """Figures by name; of a latency its median and percentiles."""
        return {**self.figures, **{key: asdict(latency) for key, latency in self.latencies.items()}}


@dataclass(frozen=True)
class Tested:
    """Which weights were tested.

    Attributes:
        file: Name of the checkpoint; None for a network in memory.
        epochs: Finished epochs of its run; None if they are not recorded.
    """

    file: str | None = None
    epochs: int | None = None

    def __str__(self) -> str:
        """Such as `best.ckpt, after 12 epochs`; empty if nothing is known."""
        epochs = None if self.epochs is None else f"after {self.epochs} epoch{'s' * (self.epochs != 1)}"
        return ", ".join(filter(None, (self.file, epochs)))


@dataclass(frozen=True)
class TestResults:
    """The results of a test for the generators of one direction.

    Attributes:
        phase: Phase of the module: `teacher`, `search` (the student is a masked network), `finetune`.
        images: Number of translated images, each counted once.
        size: Height and width of an image, in pixels.
        networks: Figures by generator; the trained one comes last, but for exported files.
        comparison: Figures of the student against the teacher, such as its distance.
        latency: How latencies were measured, by runtime.
        facts: How other figures were measured, by metric: `{"fid": {"resize": "pytorch-fid", ...}}`.
        checkpoint: Which weights were tested.
        exported: Names of the networks that are exported files.
        version: Version of the file.
    """

    __test__: ClassVar[bool] = False  # for pytest, which collects classes named Test...

    phase: str
    images: int
    size: tuple[int, int]
    networks: dict[str, NetworkResults]
    comparison: dict[str, float] = field(default_factory=dict)
    latency: dict[str, RuntimeFacts] = field(default_factory=dict)
    facts: Json = field(default_factory=dict)
    checkpoint: Tested = field(default_factory=Tested)
    exported: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def trained(self) -> str:
        """Name of the generator that was trained: `student`, or the only one."""
        return [name for name in self.networks if name not in self.exported][-1]

    @property
    def shown(self) -> dict[str, NetworkResults]:
        """The figures as tables show them: beside exported files the student has those of its comparison."""
        if not self.exported:
            return self.networks
        student = self.networks[self.trained]
        figures = {**student.figures, **self.comparison}
        return {**self.networks, self.trained: NetworkResults(figures, student.latencies)}

    def has(self, network: str, *figures: str) -> bool:
        """Whether a network was measured, and these figures of it."""
        return network in self.networks and set(figures) <= self.networks[network].figures.keys()

    @property
    def names(self) -> list[str]:
        """Names of all figures."""
        own = [name for network in self.networks.values() for name in network.figures]
        return list(dict.fromkeys([*own, *self.comparison]))

    @property
    def protocol(self) -> dict[str, str]:
        """Settings that must agree where figures of two tests are compared, by names like `fid.resize`."""
        settings = {"images": self.images, "size": list(self.size), **self.facts}
        return {key: str(value) for key, value in leaves(settings)}

    @classmethod
    def read(cls, path: Path) -> TestResults:
        """Read a `results.json` of any version up to this one, and register the metrics that it declares.

        Raises:
            UserError: The file is missing, damaged, or of a later release.
        """
        try:
            return cls.parse(read_json(path))
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{path} holds no results of a test ({reason}): remove it, or test again."
            ) from error

    @classmethod
    def parse(cls, data: object) -> TestResults:
        """Check the content of a file and build the results.

        Raises:
            ValueError: An entry is missing or of another type.
        """
        rest = dict(items(data, "it"))
        version = typed(rest.pop("version", VERSION), int, "version")
        if version > VERSION:
            raise ValueError(f"version {version} is of a later release, this one reads up to {VERSION}")
        declared = items(rest.pop("metrics", {}), "metrics")
        metrics = [build(Metric, {**dict(items(v, k)), "name": k}, f"metrics.{k}") for k, v in declared]
        for metric in metrics:
            whole(metric.digits or 0, f"metrics.{metric.name}.digits", 0, 20)
        register(*metrics)
        networks = {k: NetworkResults.parse(v, k) for k, v in items(rest.pop("networks", None), "networks")}
        checkpoint = build(Tested, rest.pop("checkpoint", {}), "checkpoint")
        size = rest.pop("size", None)
        exported = rest.pop("exported", [])
        if not isinstance(exported, list) or not all(isinstance(name, str) for name in exported):
            raise ValueError("exported is no list of names")
        if not networks.keys() - {*exported}:
            raise ValueError("networks is empty")
        if not (isinstance(size, list) and len(size) == 2):
            raise ValueError(f"size is {size!r}, not a height and a width")
        return cls(
            phase=typed(rest.pop("phase", None), str, "phase"),
            images=typed(rest.pop("images", None), int, "images"),
            size=(whole(size[0], "size", 1, 10**6), whole(size[1], "size", 1, 10**6)),
            networks=networks,
            latency={
                k: build(RuntimeFacts, v, f"latency.{k}")
                for k, v in items(rest.pop("latency", {}), "latency")
            },
            comparison={k: v for k, v in rest.items() if is_number(v)},
            facts={k: v for k, v in rest.items() if not is_number(v)},
            checkpoint=checkpoint,
            exported=tuple(exported),
            version=version,
        )

    def to_json(self) -> Json:
        """The content of the file; comparison and facts are entries of its top level."""
        data: Json = {
            "version": self.version,
            "phase": self.phase,
            "images": self.images,
            "size": list(self.size),
            "networks": {name: network.to_json() for name, network in self.networks.items()},
        }
        if str(self.checkpoint):
            data["checkpoint"] = {k: v for k, v in asdict(self.checkpoint).items() if v is not None}
        if self.exported:
            data["exported"] = list(self.exported)
        if self.latency:
            data["latency"] = {runtime: facts.to_json() for runtime, facts in self.latency.items()}
        declared = {name: asdict(METRICS[name]) for name in self.names if name in METRICS.keys() - BUILT_IN}
        return data | self.comparison | self.facts | ({"metrics": declared} if declared else {})

    def to_bytes(self) -> bytes:
        """The file as bytes."""
        return (json.dumps(self.to_json(), indent=2) + "\n").encode()
