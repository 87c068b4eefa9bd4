"""A server's life: it is waited for, its end is a sentence, and nothing of it is left, however the command ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft.errors import TrainingError
from sft.own_process import own_environment
from sft.vllm.command import ServedFolder, read_command
from sft.vllm.log import reason_in
from sft.vllm.server import serving

PRETENDED = Path(__file__).with_name("pretended_vllm.py")
FOLDER = ServedFolder("a-model", "a-tokenizer", "float32", 64)


def command_of(pids: Path, fault: str) -> str:
    return f"{sys.executable} {PRETENDED} serve --pids '{pids}' --fault '{fault}'"


def is_gone(pids: Path) -> bool:
    """Whether the last server and its engine have ended. A process that nobody waits for yet counts as ended."""
    found = [Path(f"/proc/{pid}/stat") for pid in pids.read_text().split()]
    return len(found) > 1 and all(not path.exists() or path.read_text().split()[2] == "Z" for path in found)


@pytest.mark.parametrize(
    ("fault", "seconds", "message"),
    [
        ("at once", 60, "vLLM ended with exit code 1 while it loaded a-model: error: unrecognized arguments: --fault"),
        ("while loading", 60, "vLLM ended with exit code 1 while it loaded a-model: ValueError: no room for the cache"),
        (
            "never ready",
            3.0,  # its processes are there by then, also on a machine with other work
            r"after 0.05 minutes, in which it loaded a-model: it said nothing \(.*--vllm-minutes gives it longer",
        ),
    ],
)
def test_a_server_that_does_not_come_up_is_a_sentence(tmp_path: Path, fault: str, seconds: float, message: str) -> None:
    pids, log = tmp_path / "pids", tmp_path / "log"
    with (
        pytest.raises(TrainingError, match=message) as error,
        serving(read_command(command_of(pids, fault)), FOLDER, log, seconds),
    ):
        pass
    assert str(log) in str(error.value)
    assert is_gone(pids)


def test_a_port_that_was_taken_meanwhile_is_followed_by_another(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with serving(read_command(command_of(pids, "port")), FOLDER, tmp_path / "log", 60) as server:
        assert len(pids.read_text().split()) == 4
        assert not server.how_it_ended()
        assert not is_gone(pids)
    assert is_gone(pids)


def test_nothing_is_left_of_a_server_whose_command_is_killed(tmp_path: Path) -> None:
    pids, ready = tmp_path / "pids", tmp_path / "ready"
    command, log = command_of(pids, "none"), str(tmp_path / "log")
    program = f"""
import time
from pathlib import Path
from sft.vllm.command import ServedFolder, read_command
from sft.vllm.server import serving
with serving(read_command({command!r}), ServedFolder("m", "t", "float32", 64), Path({log!r}), 60):
    Path({str(ready)!r}).touch()
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", program], env=own_environment())
    ends = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < ends:
        time.sleep(0.05)
    assert not is_gone(pids)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while not is_gone(pids) and time.monotonic() < ends:
        time.sleep(0.05)
    assert is_gone(pids)


def test_the_reason_is_the_first_error_of_those_that_follow_from_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "(Worker pid=3) INFO 11-28 00:00:00 [a.py:1] loading\n"
        "(Worker pid=3) ERROR 11-28 00:00:01 [a.py:2] torch.OutOfMemoryError: CUDA out of memory.\n"
        "(EngineCore pid=2) ERROR 11-28 00:00:02 [b.py:1] torch.OutOfMemoryError: CUDA out of memory.\n"
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert reason_in(log) == "torch.OutOfMemoryError: CUDA out of memory."
    log.write_text("one\ntwo\nthree\nfour\n")
    assert reason_in(log) == "two three four"
