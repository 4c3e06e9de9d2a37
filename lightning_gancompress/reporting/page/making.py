"""The settings of a compression, and code to use its result."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Any

from lightning_gancompress.reporting.page.run import Compression
from lightning_gancompress.schema import is_number


def facts(run: Compression) -> dict[str, str]:
    """Settings, versions and budgets by label; those that are not recorded are left out."""
    provenance, student = run.provenance, run.macs("student", run.convention)
    share = student / run.macs("teacher", run.convention)
    project, torch = provenance.get("lightning_gancompress"), provenance.get("torch")
    device = next(next(iter(run.teachers.values())).parameters()).device
    results = run.generators[0].results
    values = {
        "Policy": provenance.get("policy"),
        "Teacher": provenance.get("teacher"),
        "Budget": provenance.get("budget"),
        "Budget reached": f"{share:.4g} of the teacher, {student / 1e9:.4g} G MACs ({run.convention})",
        "Epochs": epochs_done(provenance),
        "Tested": results and (str(results.checkpoint) or None),
        "Image size": " x ".join(map(str, run.generators[0].size)) + " pixels",
        "Device of this page": device,
        "Versions": f"lightning_gancompress {project}, torch {torch}" if torch else None,
        "Page written": time.strftime("%Y-%m-%d %H:%M"),
    }
    return {label: str(value) for label, value in values.items() if value is not None}


def epochs_done(provenance: Mapping[str, Any]) -> str | None:
    """Epochs that were trained, and of how many, as text; None if they are not recorded."""
    if "epochs" not in provenance:
        return None
    done, total = provenance["epochs"], provenance.get("of_epochs", provenance["epochs"])
    if not is_number(done) or not is_number(total):
        return None if done is None else str(done)
    return f"{done:g}" if done == total else f"{done:g} of {total}: the run was stopped before its end"


def use(run: Compression) -> tuple[str, str]:
    """Python code that loads a small model, and commands that export all; empty if none is saved."""
    files = [str(generator.file) for generator in run.generators if generator.file]
    if not files:
        return "", ""
    code = f"from lightning_gancompress import load_generator\n\ngenerator = load_generator({files[0]!r})"
    commands = [["gancompress", "export", "--ckpt_path", file, "--format", "onnx"] for file in files]
    return code, "\n".join(map(shlex.join, commands))


def config(run: Compression) -> str:
    """The text of the run's `config.yaml`; empty without that file."""
    path = run.folder / "config.yaml"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
