import errno
import pickle

import pytest
import tiny

from lightning_gancompress.cli import main
from lightning_gancompress.cli.explain import condense, explain
from lightning_gancompress.errors import UserError


def raised(*errors):
    """The last of several errors, each raised from the one before."""
    last = None
    for error in errors:
        error.__cause__, last = last, error
    return last


def test_a_user_error_is_found_behind_others():
    assert explain(raised(UserError("Mend it."), ValueError("wrapped"), RuntimeError("again"))) == "Mend it."


def test_a_user_error_from_another_process_comes_as_text():
    text = "Caught UserError in worker 0.\nOriginal Traceback:\n  File ...\nlightning_gancompress.errors."
    assert (
        explain(RuntimeError(text + "UserError: Image a.png can't be decoded.\n"))
        == "Image a.png can't be decoded."
    )


def test_a_full_disk_is_explained():
    line = explain(OSError(errno.ENOSPC, "No space left on device", "runs/x.csv"))
    assert line == "runs/x.csv: No space left on device. Mend that, or choose another place."


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), KeyError("bug"), FileNotFoundError(errno.ENOENT, "bug", "x")]
)
def test_what_is_no_users_fault_is_not_explained(error):
    assert explain(error) is None


def test_user_errors_travel_between_processes():
    assert str(pickle.loads(pickle.dumps(UserError("Mend it.")))) == "Mend it."


def test_a_nested_report_becomes_one_sentence():
    report = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'GANModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'package.TeacherModule':
        Parser key "lr":
          Expected a <class 'float'>. Got value: fast
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'TeacherModule', 'init_args': {'lr': 'fast'}}"""
    assert condense(report) == "model.lr: expected float; given fast."


def test_alternatives_are_listed_once():
    report = """Parser key "trainer.devices":
  Does not validate against any of the Union subtypes
  Errors:
    - Expected a <class 'int'>
    - Expected a typing.Literal['auto']
    - Expected a <class 'int'>
  Given value: two"""
    assert condense(report) == "trainer.devices: expected int or auto; given two."


def test_choices_are_plain_and_nothing_given_is_said():
    report = "Parser key \"size\":\n  Expected a Literal['a', 'b', 3]. Got value: c"
    assert condense(report) == "size: expected a, b or 3; given c."
    assert (
        condense('Parser key "lr":\n  Expected a float. Got value: ') == "lr: expected float; given nothing."
    )


def test_a_negative_number_keeps_its_sign():
    assert condense("-1 is not in bounds") == "-1 is not in bounds."


FLAGS = [
    (["devices=banana"], "CPUAccelerator"),
    (["strategy=ddp_banana"], "invalid strategy name"),
    (["val_check_interval=100"], "`val_check_interval` (100) must be less than"),
    (
        ["callbacks+=EarlyStopping", "callbacks.monitor=val/nothing"],
        "EarlyStopping monitors val/nothing, which the validation does not log: choose",
    ),
    (["callbacks+=EarlyStopping", "callbacks.monitor=val/l1", "callbacks.mode=up"], "`mode` can be min, max"),
    (["logger=tiny.NoLogger"], "NoLogger: requirement 'banana' not met"),
]


@pytest.mark.parametrize(("flags", "words"), FLAGS)
def test_lightnings_own_errors_are_one_sentence(flags, words, tmp_path, facades, capsys):
    options = [f"--trainer.{flag}" for flag in flags]
    code, said = tiny.fail_code(capsys, [*tiny.teacher(tmp_path), *facades, *options])
    assert code == 2
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert words in line


def test_a_bug_in_a_hook_that_lightning_calls_keeps_its_traceback(tmp_path, facades):
    bug = ["--trainer.callbacks+=tiny.Bug"]
    with pytest.raises(ValueError, match="bug"):
        main([*tiny.teacher(tmp_path), *facades, *bug])
