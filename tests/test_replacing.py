import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_gancompress import files
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import draft_of, fitting, replacing, user_path, write_files


def test_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as draft:
        draft.write_text("whole")
        assert not path.exists()
        assert draft.suffix == ".txt"
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), UserError), (KeyError(), KeyError)],
)
def test_failure_leaves_the_old_file(error, raised, tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write():
        with replacing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(raised):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"file/x can't be written: .*choose another folder"),
        replacing(tmp_path / "file/x"),
    ):
        pass


# -- drafts ----------------------------------------------------------------------------------------------


def draft_by(pid, path, monkeypatch):
    """The draft that a process would write."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        return draft_of(path)


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_drafts_of_dead_processes_are_swept_where_one_writes(tmp_path, dead, monkeypatch):
    left = [draft_by(dead, tmp_path / name, monkeypatch) for name in ("last.ckpt", "other.png", "config")]
    live = draft_by(os.getppid(), tmp_path / "last.ckpt", monkeypatch)
    theirs = tmp_path / f".draft-deadbeef-{dead}-0123456789ab.ckpt"  # of another host
    old = tmp_path / f".draft-0ldbeef0-{dead}-0123456789ab.ckpt"
    own = [tmp_path / f".last.{dead}.ckpt", tmp_path / ".draft-of-thesis.txt"]
    for path in (*left, live, theirs, old, *own):
        path.write_text("half")
    os.utime(old, (0, 0))
    monkeypatch.setattr(files, "_swept", set())
    write_files({tmp_path / "any.txt": b"whole"})
    assert set(tmp_path.iterdir()) == {live, theirs, *own, tmp_path / "any.txt"}


def test_the_longest_name_can_be_written(tmp_path):
    name = "x" * 251 + ".png"
    write_files({tmp_path / name: b"whole"})
    assert [path.name for path in tmp_path.iterdir()] == [name]


# -- names and paths of users ----------------------------------------------------------------------------


def test_a_name_too_long_is_cut_and_told_apart(tmp_path):
    names = [fitting("\N{LATIN SMALL LETTER E WITH ACUTE}" * 140 + last, ".png") for last in "ab"]
    assert fitting("short", ".png") == "short.png"
    assert len(set(names)) == 2
    for name in names:
        (tmp_path / name).touch()


def test_paths_are_what_users_mean(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    assert user_path("~/a") == tmp_path / "a"
    assert user_path("$SCRATCH/a") == user_path("${SCRATCH}/a") == tmp_path / "scratch" / "a"
    with pytest.raises(UserError, match=r"\$NOPE/a: the environment variable NOPE is not set"):
        user_path("$NOPE/a")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$NOPE").mkdir()
    assert user_path("$NOPE") == Path("$NOPE")
