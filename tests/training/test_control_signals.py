"""A signal or a file asks for a stop; a second signal ends the process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sft
from sft.atomic_files import now_on_file_system
from sft.training.control_signals import ControlSignals, remove_stale_stop, request_stop


def test_a_file_asks_for_a_stop(tmp_path: Path) -> None:
    signals = ControlSignals(tmp_path / "STOP")
    assert not signals.stop_requested()
    (tmp_path / "STOP").touch()
    assert signals.stop_requested()


def test_the_first_signal_asks_and_the_second_ends(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from sft.training.control_signals import ControlSignals\n"
        "signals = ControlSignals(Path(sys.argv[1])); signals.listen(); assert not signals.stop_requested()\n"
        "os.kill(os.getpid(), signal.SIGUSR1); assert signals.stop_requested()\n"
        "sys.stdout.write('asked'); sys.stdout.flush()\n"
        "os.kill(os.getpid(), signal.SIGUSR1); sys.stdout.write('alive')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "STOP")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env=os.environ,
    )
    assert (done.stdout, done.returncode) == ("asked", -signal.SIGUSR1), done.stderr


def stays(stop_file: Path, seconds_ago: float) -> bool:
    """Whether a person's stop file of that time is there after a start."""
    now = now_on_file_system(stop_file.parent)
    stop_file.touch()
    os.utime(stop_file, (now - seconds_ago, now - seconds_ago))
    said: list[str] = []
    remove_stale_stop(stop_file, now, said.append)
    assert said == ([] if stop_file.exists() else [f"{stop_file} is older than this start, and was removed."])
    return stop_file.exists()


def test_a_stop_file_counts_if_it_is_newer_than_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft, "STARTED", time.monotonic() - 100)
    assert stays(tmp_path / "STOP", 90)
    assert not stays(tmp_path / "STOP", 110)
    remove_stale_stop(tmp_path / "STOP", 0.0, pytest.fail)  # there is none


def test_of_a_queued_job_a_stop_file_of_any_time_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFT_JOB", "lab 7")
    monkeypatch.setenv("SFT_JOB_ATTEMPT", "2")
    assert stays(tmp_path / "STOP", 1e6)


def test_what_a_signal_asked_of_one_start_is_not_asked_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFT_JOB", "lab 7")
    monkeypatch.setenv("SFT_JOB_ATTEMPT", "2")
    stop_file = tmp_path / "STOP"
    request_stop(stop_file)
    assert ControlSignals(stop_file).stop_requested()
    remove_stale_stop(stop_file, now_on_file_system(tmp_path), pytest.fail)
    assert not stop_file.exists()
    # A person's stays a person's.
    stop_file.touch()
    request_stop(stop_file)
    remove_stale_stop(stop_file, now_on_file_system(tmp_path), pytest.fail)
    assert stop_file.exists()
