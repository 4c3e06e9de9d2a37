"""Publishing of small models on the Hugging Face Hub, with a card made from the run's test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_gancompress.checkpoints.small import is_small_model, read_description
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.results import TestResults
from lightning_gancompress.evaluation.table import table
from lightning_gancompress.files import user_path
from lightning_gancompress.hub import DEFAULT, endpoint, library, told

_OF_RUN = ("generator*.safetensors", "generator*.onnx")


def push_to_hub(source: str | Path, repo: str, *, private: bool = False, message: str = "") -> str:
    """Upload a run's small models, or one model file, to the Hugging Face Hub, in one commit.

    Args:
        source: Folder of a run, whose `generator*.safetensors` and `generator*.onnx` are uploaded, and whose
            test makes the model card; or a small model or an ONNX file alone.
        repo: `user/model`; it is made if it is missing.
        private: Whether a new one is seen by its owner alone.
        message: Message of the commit.

    Returns:
        Address of the model's page.

    Raises:
        UserError: There is nothing to upload, `huggingface_hub` is missing, or the Hub refuses it.
    """
    path = user_path(source)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"repo is {repo}: write it as user/model.")
    files = _files(path)
    card, hub = model_card(path, files, repo), library()
    contents: dict[str, Any] = {**{file.name: str(file) for file in files}, "README.md": card.encode()}
    with told(f"{repo} can't be uploaded"):
        api = hub.HfApi(endpoint=endpoint())
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
        api.create_commit(repo, operations, commit_message=message or "Upload a compressed generator")
        return f"{api.endpoint}/{repo}"


def model_card(path: Path, files: list[Path], repo: str) -> str:
    """The README of a model on the Hub: what it is, how it is used, and the table of the run's test."""
    folder = path if path.is_dir() else path.parent
    tests = sorted((folder / "test").glob("results*.json")) if path.is_dir() else []
    tables = [table(TestResults.read(test)) for test in tests]
    described = next((file for file in files if is_small_model(file)), None)
    provenance = read_description(described)["provenance"] if described else {}
    named = "" if files[0].name == DEFAULT else f"/{files[0].name}"
    lines = [
        "---",
        "library_name: lightning_gancompress",
        "pipeline_tag: image-to-image",
        "tags:",
        "- gan-compression",
        "---",
        f"# {repo.partition('/')[2]}",
        "",
        "A small image-to-image generator, compressed with `lightning_gancompress`.",
        "",
        "```python",
        "from lightning_gancompress import Translator",
        "",
        f'Translator("hf://{repo}{named}").translate("photo.jpg").save("translated.png")',
        "```",
        "",
        *(["## Test", "", *tables] if tables else []),
        *_made(provenance),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _made(provenance: Mapping[str, Any]) -> list[str]:
    """How it was made; without paths, which are of the machine."""
    names = ("budget", "convention", "policy", "epochs", "lightning_gancompress", "torch")
    rows = [f"- {name}: {provenance[name]}" for name in names if name in provenance]
    return ["## How it was made", "", *rows] if rows else []


def _files(path: Path) -> list[Path]:
    """What is uploaded, the small model first.

    Raises:
        UserError: There is nothing.
    """
    if path.is_dir():
        if found := [file for pattern in _OF_RUN for file in sorted(path.glob(pattern))]:
            return found
        raise UserError(
            f"{path} holds no generator.safetensors: give the folder of a finished run, or a file."
        )
    if not path.is_file():
        raise UserError(f"There is no file or folder {path}: check the path.")
    if path.suffix == ".onnx":
        return [path]
    if not is_small_model(path):
        raise UserError(f"{path} is no small model and no ONNX file: give generator.safetensors of a run.")
    return [path, path.with_suffix(".json")] if path.suffix == ".pth" else [path]
