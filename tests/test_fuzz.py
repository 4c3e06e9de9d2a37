"""A small share of `tests/fuzz.py`, always the same inputs."""

import fuzz
import pytest


@pytest.mark.parametrize(
    ("kind", "count"), [("weights", 16), ("safetensors", 8), ("upstream", 8), ("images", 4)]
)
def test_damaged_files_are_read_or_refused(kind: str, count: int) -> None:
    tally = fuzz.fuzz(kind, count, seed=0)
    assert tally.faults == {}
    assert tally.counts["fine"] + tally.counts["refused"] == count


def test_a_traceback_and_a_module_that_is_imported_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(folder):
        monkeypatch.syspath_prepend(folder.parent)
        __import__(fuzz.CANARY)

    def fail(folder):
        raise KeyError("x")

    for reader, outcome in {read: "code", fail: "traceback"}.items():
        monkeypatch.setitem(fuzz.KINDS, "own", fuzz.Kind(fuzz.make_upstream, reader))
        assert fuzz.fuzz("own", 2, seed=0).counts == {outcome: 2}
