import errno

import pytest

from lightning_gancompress.errors import UserError
from lightning_gancompress.files import replacing


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
