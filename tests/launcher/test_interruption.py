"""A signal or the file STOP ends what is done before the training, at once and in order."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from launcher.cli import main
from launcher.console import build_console
from launcher.exit_codes import ENDED, INTERRUPTION
from launcher.held_run import work_in
from launcher.interruption import EndRequested, ended_on_request
from sft.own_process import own_module
from sft.run_folder import RunFolder
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job

ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("stop_file", [Path("nowhere/STOP"), None])
def test_a_signal_ends_it_when_all_that_was_begun_has_been_left(stop_file: Path | None, number: int) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    left: list[str] = []

    def work() -> None:
        with ended_on_request(stop_file):
            try:
                os.kill(os.getpid(), number)
                threading.Event().wait(60)
            finally:
                left.append("in order")

    with pytest.raises(EndRequested) as caught:
        work()
    assert (caught.value.number, str(caught.value), left) == (number, signal.Signals(number).name, ["in order"])
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_the_stop_file_ends_it_too(tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()
    with pytest.raises(EndRequested, match="STOP"), ended_on_request(tmp_path / "STOP"):
        threading.Event().wait(60)


def test_a_command_that_holds_a_run_folder_ends_in_order_with_the_code_of_a_killed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")

    def work() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(60)
        return 0

    assert work_in(run, work, build_console(), is_training=False) == 143
    assert capsys.readouterr().out == "Ended by SIGTERM; no step is lost by it. The same command goes on.\n"
    assert not run.lock.exists()


# It may come between the opening of a file and the block that closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sft_train_obeys_a_stop_file_that_is_newer_than_its_start_once_and_trains_nothing(
    tmp_path: Path,
    tiny_model_dir: Path,
    small_records: SmallRecords,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It starts a Ray, which is in its session and so ends with it.
    monkeypatch.setattr("launcher.cluster.ray_process.own_module", own_module)
    config, run = tmp_path / "job.yaml", RunFolder(tmp_path / "job")
    content = two_stage_job("job", tmp_path, tiny_model_dir, small_records, {"broad": 4, "words": 4})
    config.write_text(yaml.safe_dump(content))
    assert main(["prepare", str(config)]) == 0
    run.stop_file.touch()
    assert main(["prepare", str(config)]) == 0, "it is not meant"
    assert main(["train", str(config)]) == 3
    assert capsys.readouterr().out.endswith("Ended by STOP; no step is lost by it. The same command goes on.\n")
    assert not run.stop_file.exists()
    assert not run.lock.exists()
    assert run.latest_attempt() == 0


def test_ctrl_c_stays_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ended_on_request(tmp_path / "STOP"):
        signal.raise_signal(signal.SIGINT)


INTERRUPTED = """
# What sleeps here waits for the interrupt: if that is lost, the test's own time is over first.
import os, sys, time, weakref
from launcher import __main__, cli
from launcher.verbs import status

def interrupt(*_):
    os.kill(os.getpid(), int(number))

def in_a_code_string(*_):
    exec("interrupt()")
    time.sleep(30)

def in_a_callback(*_):
    # Python drops what it raises, also in those of its import locks.
    class Lock: pass
    lock = Lock()
    waiting = weakref.ref(lock, interrupt)
    del lock
    time.sleep(30)

def while_a_dataclass_is_made(*_):
    # Python makes a RuntimeError of what is raised here.
    class Field:
        def __set_name__(self, owner, name):
            interrupt()
    class Made:
        field = Field()
    time.sleep(30)

number, when, how = sys.argv[1:]
sys.argv = ["sft", "status", "nowhere"]
if when == "while it is imported":
    cli.build_parser = globals()[how]
else:
    status.run = globals()[how]
sys.exit(__main__.main())
"""
WHERE = ("in_a_code_string", "in_a_callback", "while_a_dataclass_is_made")


@pytest.mark.parametrize("when", ["while it is imported", "while it works"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_ends_with_its_own_code_and_words_wherever_the_signal_found_it(
    number: signal.Signals, when: str
) -> None:
    """Python itself would end by SIGINT, since the class of a dataclass is a code string too."""
    code, said = (130, INTERRUPTION) if number == signal.SIGINT else (143, ENDED.format(number.name) + "\n")
    commands = [[sys.executable, "-c", INTERRUPTED, str(int(number)), when, how] for how in WHERE]
    started = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT) for command in commands]
    ended = [(process.communicate(timeout=20), process.returncode) for process in started]
    assert ended == [(("", said), code)] * len(WHERE)


def test_what_a_shell_runs_in_the_background_obeys_all_but_ctrl_c() -> None:
    def code(number: signal.Signals, script: str, how: str) -> int:
        command = [sys.executable, "-c", script, str(int(number)), "while it works", how]
        ignoring = ["bash", "-c", "trap '' INT; exec \"$@\"", "_", *command]
        return subprocess.run(ignoring, capture_output=True, timeout=20, cwd=ROOT).returncode

    goes_on = INTERRUPTED.replace("time.sleep(30)", "return 0")  # no interrupt comes
    assert code(signal.SIGINT, goes_on, "in_a_code_string") == 0
    assert code(signal.SIGTERM, INTERRUPTED, "in_a_callback") == 143
