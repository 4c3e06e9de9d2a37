import os
import pickle
from pathlib import Path

import pytest
import torch

from lightning_gancompress.checkpoint_io import AtomicCheckpointIO
from lightning_gancompress.errors import UserError


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def full_disk(checkpoint, file):
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            save({"weight": torch.ones(1000, 1000)}, full)

    save = torch.save
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match=r"last\.ckpt.*No space left"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_no_code_is_run_from_a_checkpoint(tmp_path):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(os.system))
    with pytest.raises(UserError, match=r"evil\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_only_checkpoints_are_removed(tmp_path: Path) -> None:
    """A checkpoint names the files that its run has replaced; they may be anything."""
    (tmp_path / "photos.ckpt").mkdir()
    for name in ("old.ckpt", "photo.png", "photos.ckpt/a.png"):
        (tmp_path / name).touch()
    for name in ("old.ckpt", "photo.png", "photos.ckpt", "missing.ckpt"):
        AtomicCheckpointIO().remove_checkpoint(str(tmp_path / name))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "photo.png", "photos.ckpt"]
