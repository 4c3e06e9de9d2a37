"""A compression, read from the files of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lightning_gancompress.checkpoints import load_networks
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import Header
from lightning_gancompress.checkpoints.small import read_description
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.metrics import MACS_EXACT, MACS_LITERATURE, PARAMS
from lightning_gancompress.evaluation.results import NetworkResults, TestResults
from lightning_gancompress.networks import blank_image, image_channels, pixels
from lightning_gancompress.pruning import count_params, layer_costs
from lightning_gancompress.speed import read_advice
from lightning_gancompress.tasks import Role, Side

Networks = Mapping[Role, nn.Module]
MACS = {"exact": MACS_EXACT, "literature": MACS_LITERATURE}  # by the convention of a budget


@dataclass(frozen=True)
class Generator:
    """One compressed generator.

    Attributes:
        role: Role of the generator.
        networks: Figures of `teacher`, `student` and exported files: those of the test, or costs alone
            without a test.
        results: Results of the test, or None.
        size: Height and width of an image, in pixels.
        file: File of the small model; None if it isn't written.
        provenance: Policy, budget, versions and so on, as saved with the small model.
        grid: Image grid of the test, else of the last validation, or None.
        speed: Measured advice on speed, in sentences; empty if there is none.
    """

    role: Role
    networks: Mapping[str, NetworkResults]
    results: TestResults | None
    size: tuple[int, int]
    file: Path | None
    provenance: Mapping[str, Any]
    grid: Path | None
    speed: Sequence[str] = ()

    @property
    def teacher(self) -> Mapping[str, float]:
        """Figures of the teacher."""
        return self.networks["teacher"].figures

    @property
    def student(self) -> Mapping[str, float]:
        """Figures of the student."""
        return self.networks["student"].figures


@dataclass(frozen=True)
class Compression:
    """A compression: its networks and its compressed generators.

    Attributes:
        folder: Folder of the run.
        phase: "search" if the student is a masked network, else "finetune".
        teachers: The teacher's networks by role.
        students: The student's networks by role.
        generators: The compressed generators.
    """

    folder: Path
    phase: str
    teachers: Networks
    students: Networks
    generators: tuple[Generator, ...]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Policy, budget, versions and so on, the same for all small models; empty until they are saved."""
        return self.generators[0].provenance

    @property
    def unpaired(self) -> bool:
        """Whether generators translate both ways."""
        return any(generator.role.partner for generator in self.generators)

    @property
    def network(self) -> str:
        """Name of the teacher's class."""
        return type(self.teachers[self.generators[0].role]).__name__

    @property
    def convention(self) -> str:
        """Convention by which the budget counts MACs."""
        recorded = self.provenance.get("convention")
        return recorded if isinstance(recorded, str) and recorded in MACS else "exact"

    def macs(self, network: str, convention: str = "exact") -> float:
        """MACs of all compressed generators of the `teacher` or the `student` together."""
        return sum(generator.networks[network].figures[MACS[convention]] for generator in self.generators)

    def test_command(self, *options: str) -> list[str]:
        """The command that tests this run."""
        last = self.folder / "checkpoints" / "last.ckpt"
        return ["gancompress", "test", "--ckpt_path", str(last), *options]


def read_run(
    folder: Path,
    networks: Mapping[str, nn.Module] | None = None,
    phase: str = "finetune",
    preprocessing: Mapping[str, Any] | None = None,
) -> Compression:
    """Read the files of a compression: see `write_page`.

    Raises:
        UserError: The folder holds no compression, or a file in it can't be read.
    """
    if networks is None:
        path = folder / "checkpoints" / "last.ckpt"
        networks = {prefix: network for prefix, (network, _) in load_networks(path).items()}
        header = Header.of(read_torch(path), path)
        phase, preprocessing = header.phase, header.preprocessing
    teachers, students = of_owner(networks, "teacher"), of_owner(networks, "student")
    generators = [role for role in students if role.side is Side.GENERATOR and role in teachers]
    if not generators:
        raise UserError(f"{folder} holds no compression: there is no student's generator in its checkpoint.")
    # CycleGAN's other generator may not be compressed
    smaller = [role for role in generators if count_params(students[role]) < count_params(teachers[role])]
    compressed = [
        read_generator(folder, role, teachers[role], students[role], preprocessing or {})
        for role in smaller or generators
    ]
    return Compression(folder, phase, teachers, students, tuple(compressed))


def of_owner(networks: Mapping[str, nn.Module], owner: str) -> Networks:
    """The networks of "teacher" or "student" by role, from names such as `teacher.generator`."""
    prefix = f"{owner}."
    return {Role(key.removeprefix(prefix)): net for key, net in networks.items() if key.startswith(prefix)}


def read_generator(
    folder: Path, role: Role, teacher: nn.Module, student: nn.Module, preprocessing: Mapping[str, Any]
) -> Generator:
    """Read test results, description and grid of one generator, and count its costs without a test."""
    results, file = folder / "test" / f"results{role.suffix}.json", folder / f"generator{role.suffix}.pth"
    tested = TestResults.read(results) if results.is_file() else None
    description = read_description(file) if file.with_suffix(".json").is_file() else {}
    preprocessing = description.get("preprocessing", preprocessing)
    size = pixels(preprocessing)
    height, width = tested.size if tested else (size, size) if isinstance(size, int) else size
    channels = image_channels(preprocessing)
    networks = {"teacher": teacher, "student": student}
    if tested and not all(tested.has(name, *MACS.values()) for name in networks):
        raise UserError(f"{results} lacks the MACs of teacher or student: remove it, or test again.")
    return Generator(
        role,
        tested.shown if tested else {k: costs(n, (height, width), channels) for k, n in networks.items()},
        tested,
        (height, width),
        file if file.is_file() else None,
        description.get("provenance", {}),
        find_grid(folder, role),
        read_advice(folder / f"speed{role.suffix}.json"),
    )


def costs(network: nn.Module, size: tuple[int, int], channels: list[int]) -> NetworkResults:
    """MACs and parameters as figures."""
    layers = layer_costs(network, [blank_image(network, size, channels)])
    return NetworkResults(
        {
            MACS_EXACT: sum(layer.macs_exact for layer in layers),
            MACS_LITERATURE: sum(layer.macs_literature for layer in layers),
            PARAMS: count_params(network),
        }
    )


def find_grid(folder: Path, role: Role) -> Path | None:
    """The image grid of the test, else of the last validation, or None."""
    tested = folder / "test" / f"grid{role.suffix}.png"
    epochs = sorted((folder / "images").glob(f"epoch_*[0-9]{role.suffix}.png"))
    return tested if tested.is_file() else epochs[-1] if epochs else None
