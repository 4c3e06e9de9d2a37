"""Parts of `tests/kills.py`."""

import os
import random
import signal
from collections import Counter

import kills


def test_the_table_counts_stops_by_place() -> None:
    tally = kills.Tally(Counter({"search": 2, "writing": 1}), runs=2, equal=1, faults=["run-1: weights"])
    assert kills.table({"Pix2Pix": tally}).splitlines()[-1] == "| Pix2Pix | 3 | search 2, writing 1 | 2 | 1 |"


def test_a_process_with_a_handler_is_told() -> None:
    assert not kills._handles(os.getpid())
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert kills._handles(os.getpid())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_run_that_was_killed_ends_like_a_whole_one(tmp_path) -> None:
    kills.KINDS["quick"] = kills.Kind(
        lambda folder: [*kills.tiny.teacher(folder), *kills.tiny.data(folder.parent / "facades")],
        lambda folder, _: [*kills.tiny.teacher(folder), *kills.tiny.data(folder.parent / "facades")],
    )
    try:
        trials = kills.Trials("quick", tmp_path, random.Random(0))
        trials.once(stops=1)
    finally:
        del kills.KINDS["quick"]
    assert (trials.tally.runs, trials.tally.equal, trials.tally.faults) == (1, 1, [])
