"""How a compression was made, and how to use it."""

from __future__ import annotations

import shlex
import time

from lightning_gancompress.reporting.page.run import Compression


def facts(run: Compression) -> dict[str, str]:
    """Settings, versions and budgets by label, as far as they are known."""
    made, student = run.provenance, run.macs("student", run.convention)
    share = student / run.macs("teacher", run.convention)
    versions = f"lightning_gancompress {made.get('lightning_gancompress')}, torch {made.get('torch')}"
    device = next(next(iter(run.teachers.values())).parameters()).device
    found = {
        "Policy": made.get("policy"),
        "Teacher": made.get("teacher"),
        "Budget wanted": made.get("budget"),
        "Budget reached": f"{share:.4g} of the teacher, {student / 1e9:.4g} G MACs ({run.convention})",
        "Epochs": made.get("epochs"),
        "Image size": " x ".join(map(str, run.generators[0].size)) + " pixels",
        "Device of this page": device,
        "Versions": versions if "torch" in made else None,
        "Page written": time.strftime("%Y-%m-%d %H:%M"),
    }
    return {label: str(value) for label, value in found.items() if value is not None}


def use(run: Compression) -> tuple[str, str]:
    """Python that loads a small model, and commands that export all; empty before there is one."""
    files = [str(generator.file) for generator in run.generators if generator.file]
    if not files:
        return "", ""
    code = f"from lightning_gancompress import load_generator\n\ngenerator = load_generator({files[0]!r})"
    commands = [["gancompress", "export", "--ckpt_path", file, "--format", "onnx"] for file in files]
    return code, "\n".join(map(shlex.join, commands))


def config(run: Compression) -> str:
    """The settings of the run as they were written, or nothing."""
    path = run.folder / "config.yaml"
    return path.read_text() if path.is_file() else ""
