"""The command `push`."""

from __future__ import annotations

from lightning_gancompress.options import checked
from lightning_gancompress.publishing import push_to_hub


@checked
def push(
    source: str, repo: str, private: bool = False, message: str = "Upload a compressed generator"
) -> None:
    """Upload small models to the Hugging Face Hub, with a card made from the run's test.

    Args:
        source: Folder of a run, or one small model or ONNX file.
        repo: `user/model` on the Hub; it is made if it is missing.
        private: Let a new one be seen by its owner alone.
        message: Message of the commit.
    """
    print(f"Uploaded to {push_to_hub(source, repo, private=private, message=message)}")
