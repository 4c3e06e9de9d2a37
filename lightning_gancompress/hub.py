"""Model files on the Hugging Face Hub, named `hf://user/model`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.files import user_path
from lightning_gancompress.packages import require

SCHEME = "hf://"
DEFAULT = "generator.safetensors"
_NAME = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+?))?(/(?P<file>[^/@][^@]*))?")


def model_file(path: str | Path) -> Path:
    """A model file as users name it: a path, or `hf://user/model`, which is downloaded into the Hub's cache.

    Args:
        path: A path, as `user_path` takes it; or `hf://user/model`, whose file is `generator.safetensors`,
            `hf://user/model/other.onnx`, or `hf://user/model@revision`.

    Raises:
        UserError: It can't be downloaded.
    """
    if not str(path).startswith(SCHEME):
        return user_path(path)
    named = _NAME.fullmatch(str(path))
    if named is None:
        raise UserError(
            f"{path} names no model on the Hub: write hf://user/model, or hf://user/model/file.onnx."
        )
    hub, file = library(), named["file"] or DEFAULT

    def download(name: str) -> Path:
        return Path(hub.hf_hub_download(named["repo"], name, revision=named["revision"], endpoint=endpoint()))

    with told(f"{path} can't be downloaded"):
        found = download(file)
        if found.suffix == ".pth":  # whose description is in a file of its own
            download(str(Path(file).with_suffix(".json")))
        return found


def library() -> Any:
    """The package `huggingface_hub`.

    Raises:
        UserError: It is missing.
    """
    require("The Hub", "huggingface_hub")
    import huggingface_hub

    return huggingface_hub


def endpoint() -> str | None:
    """The Hub's address, where `HF_ENDPOINT` names another."""
    return os.environ.get("HF_ENDPOINT")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Context in which errors of the Hub are one sentence, which begins with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the Hub, of its http client, and of the disk
        raise UserError(
            f"{what} ({_why(error)}): check the name, the connection, and `hf auth login`."
        ) from error


def _why(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    known = {
        401: "401, not logged in or no such model",
        403: "403, no access",
        404: "404, no such model or file",
    }
    return known.get(status, "") or first_line(error)[:200]  # type: ignore[arg-type]
