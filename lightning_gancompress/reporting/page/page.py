"""The page: what was compressed, how it looks, what stayed, how the search went, and how it was made."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from lightning_gancompress.checkpoints import load_networks
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import KEY
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import write_files
from lightning_gancompress.networks import blank_image, image_channels, pixels
from lightning_gancompress.pruning import count_params, layer_costs
from lightning_gancompress.reporting.page.channels import channel_section
from lightning_gancompress.reporting.page.curve_section import curve_section
from lightning_gancompress.reporting.page.curves import read_curves
from lightning_gancompress.reporting.page.pictures import cut_grid, data_uri, difference
from lightning_gancompress.reporting.page.quality import quality_table

PAGE = "report.html"
ROWS = 6  # of pictures, per direction

Networks = Mapping[str, nn.Module]


def write_page(
    folder: str | Path,
    networks: Networks | None = None,
    phase: str = "finetune",
    preprocessing: Mapping[str, Any] | None = None,
) -> Path:
    """Write `report.html` into the folder of a compression, from the files there.

    Args:
        folder: The run's `default_root_dir`.
        networks: Teacher's and student's, named like `teacher.generator`; from `checkpoints/last.ckpt` unless
            given.
        phase: "search" where the student is still the whole network under masks.
        preprocessing: Of the images, as far as no small model tells it; likewise.

    Raises:
        UserError: The folder holds no compression, or can't be written to.
    """
    folder = Path(folder)
    if networks is None:
        path = folder / "checkpoints" / "last.ckpt"
        networks = {prefix: network for prefix, (network, _) in load_networks(path).items()}
        preprocessing = read_torch(path)[KEY]["preprocessing"]
    roles = [role for role in generators(networks) if compressed(networks, role)] or generators(networks)
    if not roles:
        raise UserError(f"{folder} holds no compression: there is no student's generator in its checkpoint.")
    found = {role: read_role(folder, networks, role, preprocessing or {}) for role in roles}
    made = settings(found) | {"gan_mode": gan_mode(folder, roles[0])}
    parts = [header(found, networks, phase)]
    parts += [picture_section(folder, found)]
    parts += [channel_section(networks, roles)]
    parts += [curve_section(read_curves(folder / "logs"), made, full_macs(found))]
    parts += [quality_section(folder, found)]
    parts += [making_section(folder, found, networks)]
    title = f"Compression of {type(networks[f'teacher.{roles[0]}']).__name__}"
    style = Path(__file__).with_name("style.css").read_text()
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )
    write_files({folder / PAGE: page.encode()})
    return folder / PAGE


# -- facts -----------------------------------------------------------------------------------------------


def generators(networks: Networks) -> list[str]:
    """Roles of the generators that teacher and student both have."""
    roles = [key.removeprefix("student.") for key in networks if key.startswith("student.generator")]
    return [role for role in roles if f"teacher.{role}" in networks]


def compressed(networks: Networks, role: str) -> bool:
    """Whether the student's generator is smaller: CycleGAN's other one stays whole."""
    return count_params(networks[f"student.{role}"]) < count_params(networks[f"teacher.{role}"])


def read_role(
    folder: Path, networks: Networks, role: str, preprocessing: Mapping[str, Any]
) -> dict[str, Any]:
    """What is known of one generator: its results, its description, and costs."""
    suffix = role.removeprefix("generator")
    found: dict[str, Any] = {"suffix": suffix}
    found["tested"] = read_json(folder / "test" / f"results{suffix}.json")
    found["description"] = read_json(folder / f"generator{suffix}.json")
    file = folder / f"generator{suffix}.pth"
    found["file"] = file.name if file.is_file() else ""
    preprocessing = found["description"].get("preprocessing", preprocessing)
    size = pixels(preprocessing)
    found["size"] = found["tested"].get("size", [size, size] if isinstance(size, int) else list(size))
    channels = image_channels(preprocessing)
    found["costs"] = found["tested"].get("networks") or {
        name: costs(networks[f"{name}.{role}"], tuple(found["size"]), channels)
        for name in ("teacher", "student")
    }
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file that may be missing."""
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def costs(network: nn.Module, size: tuple[int, int], channels: list[int]) -> dict[str, Any]:
    """MACs and parameters, under the names of the test's results."""
    layers = layer_costs(network, [blank_image(network, size, channels)])
    return {
        "macs_exact": sum(layer.macs_exact for layer in layers),
        "macs_literature": sum(layer.macs_literature for layer in layers),
        "params": count_params(network),
    }


def settings(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Where the small generators come from, as saved with them."""
    return dict(next(iter(found.values()))["description"].get("provenance", {}))


def gan_mode(folder: Path, role: str) -> str:
    """The adversarial loss of the fine-tuning: as set, else the task's default."""
    config = folder / "config.yaml"
    found = re.search(r"gan_mode: (\w+)", config.read_text()) if config.is_file() else None
    return found[1] if found else ("vanilla" if role == "generator" else "lsgan")


def full_macs(found: Mapping[str, Mapping[str, Any]]) -> float:
    """MACs of the teacher's compressed generators, as the budget counts them."""
    key = f"macs_{settings(found).get('convention', 'exact')}"
    return float(sum(facts["costs"]["teacher"][key] for facts in found.values()))


# -- sections --------------------------------------------------------------------------------------------


def header(found: Mapping[str, Mapping[str, Any]], networks: Networks, phase: str) -> str:
    """What was compressed, and the headline numbers of each direction."""
    totals = {
        name: sum(facts["costs"][name]["macs_exact"] for facts in found.values())
        for name in ("teacher", "student")
    }
    network = type(networks[f"teacher.{next(iter(found))}"]).__name__
    unpaired = any(role.endswith("to" + end) for role in found for end in "AB")
    made = settings(found)
    ratio = totals["teacher"] / totals["student"]
    if phase == "search":
        title = f"{network}: the search for its channels isn't over"
    else:
        title = f"{network} with {times(ratio)} fewer MACs"
    teacher = f", from <code>{escape(str(made['teacher']))}</code>" if "teacher" in made else ""
    task = "Unpaired" if unpaired else "Image-to-image"
    parts = [
        f'<header><p class="eyebrow">{task} translation, compressed by lightning_gancompress</p>'
        f"<h1>{escape(title)}</h1><p>{escape(str(made.get('policy', 'A policy')))} chose the channels that "
        f"stay{teacher}.</p>"
    ]
    for facts in found.values():
        if facts["suffix"]:
            parts.append(f"<h3>{direction(facts)}</h3>")
        cells = "".join(
            f"<div><dt>{escape(label)}</dt><dd>{value}</dd><dd>{escape(detail)}</dd></div>"
            for label, value, detail in tiles(facts)
        )
        parts.append(f'<dl class="tiles">{cells}</dl>')
    return "\n".join(parts) + "</header>"


def tiles(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, number and explanation of each headline figure that is known."""
    teacher, student, tested = facts["costs"]["teacher"], facts["costs"]["student"], facts["tested"]

    def fewer(label: str, key: str, scale: float, unit: str) -> tuple[str, str, str]:
        if student[key] < scale / 10:  # such as 0.0038 G
            scale, unit = scale / 1000, {"G": "M", "M": "k", "MB": "kB"}[unit]
        detail = f"{teacher[key] / scale:.3g} → {student[key] / scale:.3g} {unit}"
        return label, times(teacher[key] / student[key]), detail

    found = [
        fewer("Fewer MACs, exact", "macs_exact", 1e9, "G"),
        fewer("Fewer MACs, literature", "macs_literature", 1e9, "G"),
        fewer("Fewer parameters", "params", 1e6, "M"),
    ]
    if "bytes" in student:
        found.append(fewer("Smaller file", "bytes", 1e6, "MB"))
    if all("latency_ms" in side for side in (teacher, student)):
        medians = [side["latency_ms"]["median_ms"] for side in (teacher, student)]
        detail = f"{medians[0]:.3g} → {medians[1]:.3g} ms an image"
        found.append(("Faster", times(medians[0] / medians[1]), detail))
    for key in student:
        if key.startswith("fid") and key in teacher:
            label = key.upper().replace("_", "-")
            found.append((label, f"{student[key]:.4g}", f"teacher {teacher[key]:.4g}; lower is better"))
    if "teacher_l1" in tested:
        found.append(("Student to teacher", f"{tested['teacher_l1']:.3f}", "L1 of pixels in [-1, 1]"))
    if "teacher_coverage" in tested:
        found.append(
            ("Coverage of the teacher", f"{tested['teacher_coverage']:.2f}", "1 keeps all neighbourhoods")
        )
    return found


def picture_section(folder: Path, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of pictures side by side, of the test or of the last validation."""
    parts = ["<section><h2>The student\u2019s pictures beside the teacher\u2019s</h2>"]
    for facts in found.values():
        if facts["suffix"]:
            parts.append(f"<h3>{direction(facts)}</h3>")
        path = folder / "test" / f"grid{facts['suffix']}.png"
        if not path.is_file():
            earlier = sorted((folder / "images").glob(f"epoch_*[0-9]{facts['suffix']}.png"))
            path = earlier[-1] if earlier else path
        if path.is_file():
            origin = "test images" if path.parent.name == "test" else f"validation, {path.stem}"
            told = f"First {origin}. The difference of student and teacher is amplified three times."
            parts.append(f'<p class="soft">{escape(told)}</p>{pictures(path, facts)}')
        else:
            parts.append(todo("No pictures yet.", folder))
    return "\n".join(parts) + "</section>"


def pictures(path: Path, facts: Mapping[str, Any]) -> str:
    """The rows of a grid."""
    height, width = facts["size"]
    rows = cut_grid(path, ["source", "target", "teacher", "student"], (height, width))
    if "" in rows[0]:
        rows = cut_grid(path, ["source", "teacher", "student"], (height, width))
    parts = []
    for number, row in enumerate(rows[:ROWS], 1):
        if "student" in row:
            row["difference"] = difference(row["teacher"], row["student"])
        kind = "row three" if len(row) == 4 else "row"
        cells = "".join(
            f'<figure class="{name or "whole"}"><figcaption>{name}</figcaption>'
            f'<img src="{data_uri(picture)}" width="{picture.width}" height="{picture.height}" '
            f'alt="image {number}: {name or "source, target, teacher and student"}"></figure>'
            for name, picture in row.items()
        )
        parts.append(f'<div class="{kind}" style="--n:{len(row)}">{cells}</div>')
    return "".join(parts)


def quality_section(folder: Path, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Cost and quality with the protocol, and how to measure what is missing."""
    parts = ["<section><h2>What it costs, and how good it is</h2>"]
    for facts in found.values():
        if facts["suffix"]:
            parts.append(f"<h3>{direction(facts)}</h3>")
        parts.append(quality_table(facts["costs"]))
        notes = folder / "test" / f"table{facts['suffix']}.md"
        lines = notes.read_text().splitlines() if facts["tested"] and notes.is_file() else []
        told = [escape(line) for line in lines if line.strip() and not line.startswith("|")]
        parts.append(f'<div class="notes">{"".join(f"<p>{line}</p>" for line in told)}</div>')
    measured = [set(facts["costs"]["student"]) for facts in found.values() if facts["tested"]]
    if not measured:
        parts.append(todo("Quality has not been measured yet.", folder))
    elif not any(key.startswith("fid") for key in measured[0]):
        option = "--trainer.callbacks+=Evaluation --trainer.callbacks.fid_weights=WEIGHTS.pth"
        parts.append(todo("FID has not been measured.", folder, option))
    if measured and "latency_ms" not in measured[0]:
        parts.append(todo("Latency has not been measured.", folder, "--trainer.callbacks+=Evaluation"))
    return "\n".join(parts) + "</section>"


def making_section(folder: Path, found: Mapping[str, Mapping[str, Any]], networks: Networks) -> str:
    """Settings, versions, budgets, and how to use the result."""
    made = settings(found)
    key = f"macs_{made.get('convention', 'exact')}"
    reached = sum(facts["costs"]["student"][key] for facts in found.values())
    rows = {
        "Policy": made.get("policy"),
        "Teacher": made.get("teacher"),
        "Budget wanted": made.get("budget"),
        "Budget reached": f"{reached / full_macs(found):.4g} of the teacher, {reached / 1e9:.4g} G MACs "
        f"({made.get('convention', 'exact')})",
        "Epochs": made.get("epochs"),
        "Image size": " x ".join(map(str, next(iter(found.values()))["size"])) + " pixels",
        "Device of this page": str(next(next(iter(networks.values())).parameters()).device),
        "Versions": f"lightning_gancompress {made['lightning_gancompress']}, torch {made['torch']}"
        if "torch" in made
        else None,
        "Page written": time.strftime("%Y-%m-%d %H:%M"),
    }
    facts = "".join(
        f"<dt>{label}</dt><dd>{escape(str(value))}</dd>" for label, value in rows.items() if value is not None
    )
    parts = [f'<section><h2>How it was made</h2><dl class="facts">{facts}</dl>']
    files = [str(folder / role["file"]) for role in found.values() if role["file"]]
    if files:
        code = f"from lightning_gancompress import load_generator\n\ngenerator = load_generator({files[0]!r})"
        export = "\n".join(f"gancompress export --ckpt_path {file} --format onnx" for file in files)
        parts.append(f"<h3>Use it</h3><pre>{escape(code)}</pre><pre>{escape(export)}</pre>")
    config = folder / "config.yaml"
    if config.is_file():
        parts.append(
            f"<details><summary>All settings</summary><pre>{escape(config.read_text())}</pre></details>"
        )
    return "\n".join(parts) + "</section>"


# -- words -----------------------------------------------------------------------------------------------


def times(ratio: float) -> str:
    """A ratio with a sensible number of digits."""
    return f"{ratio:.0f}\u00d7" if ratio >= 20 else f"{ratio:.1f}\u00d7"


def direction(facts: Mapping[str, Any]) -> str:
    """A to B."""
    return re.sub(r"_(\w)to(\w)", r"\1 to \2", facts["suffix"])


def todo(what: str, folder: Path, options: str = "") -> str:
    """What is missing, and the command that makes it."""
    command = f"gancompress test --ckpt_path {folder / 'checkpoints' / 'last.ckpt'} {options}".strip()
    return f'<div class="todo"><p>{what} This does:</p><p><code>{escape(command)}</code></p></div>'
