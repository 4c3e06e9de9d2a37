import os
import signal

import kills
import pytest

from lightning_gancompress import slurm
from lightning_gancompress.stop_signals import Stopped, StopSignals, requeued_at_once


@pytest.fixture
def task(tmp_path, monkeypatch):
    """The first of two tasks of a job, in a process that has not asked for another start."""
    monkeypatch.setattr(slurm, "_asked_for", set())
    for name, value in kills.slurm_tasks(2, tmp_path)[0].items():
        monkeypatch.setenv(name, value)


def asked(folder):
    log = folder / "scontrol.log"
    return log.read_text().splitlines() if log.exists() else []


def test_the_first_task_asks_for_another_start(task, tmp_path, monkeypatch, capfd):
    slurm.requeue()
    slurm.requeue()  # its signal came again
    assert "Slurm will start job 1234 again." in capfd.readouterr().err
    monkeypatch.setenv("SLURM_PROCID", "1")
    slurm.requeue()
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "1200")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")
    slurm.requeue()
    assert asked(tmp_path) == ["requeue 1234", "requeue 1200_5"]


@pytest.mark.parametrize("there", [True, False])
def test_what_slurm_refuses_is_said(there, task, tmp_path, monkeypatch, capfd):
    if there:
        (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Job is not requeueable' >&2\nexit 1\n")
    else:
        monkeypatch.setenv("PATH", "")
    slurm.requeue()
    words = capfd.readouterr().err
    assert ("Job is not requeueable" if there else "scontrol") in words
    assert "submit it with `sbatch --requeue`" in words


@pytest.mark.parametrize(
    ("variables", "starts"),
    [
        ({}, True),
        ({"SLURM_JOB_NAME": "bash"}, False),
        ({"TORCHELASTIC_RUN_ID": "none"}, False),
        ({"SLURM_NTASKS": None}, False),
        ({"SLURM_JOB_ID": None}, False),
    ],
)
def test_jobs_in_which_lightning_trains_as_a_task_of_slurm(variables, starts, task, monkeypatch):
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    assert slurm.starts_tasks() == starts


def test_before_training_a_job_is_started_again_at_once(task, tmp_path):
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with pytest.raises(Stopped) as stop, requeued_at_once():
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)  # late, as where another task has stopped this one
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stop.value.code == 138
    assert asked(tmp_path) == ["requeue 1234"]


def test_outside_slurm_nothing_is_handled():
    with requeued_at_once():
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_what_is_ignored_stays_ignored():
    """As SIGHUP is under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = StopSignals()
    try:
        signals.take_over(signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None
        signals.give_back()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
