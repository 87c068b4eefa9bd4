"""What is printed where nothing can be written: a full disk, a closed stream, a pipe that nobody reads any more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SFT = f"{sys.executable} -m launcher"
FULL = "No space left on device"

TRAINING = """
import sys, threading
from sft.guarded_output import going_on_without_output, output_guarded

def show():
    for number in range(3):
        print("a step", file=sys.OUT, flush=True)

with output_guarded(), going_on_without_output():
    shown = threading.Thread(target=show)
    shown.start()
    shown.join()
    show()
"""


def run(command: str, stdout: int = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, env=environment
    )


def script(text: str, into: str = "", stdout: int = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    return run(f"exec {sys.executable} -c '{text}' {into}", stdout)


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("verb", ["--version", "--help", "config-schema"])
@pytest.mark.parametrize(("into", "why"), [("> /dev/full", FULL), (">&-", "it is closed")])
def test_a_command_without_room_for_its_answer_ends_with_one_sentence(verb: str, into: str, why: str) -> None:
    done = run(f"{SFT} {verb} {into}")
    assert (done.returncode, done.stderr) == (1, f"standard output cannot be written: {why}\n")


def test_a_command_whose_answer_nobody_reads_ends_in_silence(unread: int) -> None:
    done = run(f"exec {SFT} config-schema", stdout=unread)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("into", ["2> /dev/full", "2>&-", "> /dev/full 2>&1", ">&- 2>&-"])
def test_what_goes_to_stderr_ends_nothing_and_a_mistake_keeps_its_code(into: str) -> None:
    assert run(f"{SFT} plan --offline nowhere.yaml {into}").returncode == 2
    expected = (1, "") if into.startswith(">") else (0, "sft")
    done = run(f"{SFT} --version {into}")
    assert (done.returncode, done.stdout[:3]) == expected


@pytest.mark.parametrize(
    ("of", "into", "name"),
    [("stdout", "> /dev/full", "output"), ("stdout", ">&-", "output"), ("stderr", "2> /dev/full", "error")],
)
def test_a_training_goes_on_without_its_output_and_says_so_once_on_the_other_stream(
    of: str, into: str, name: str
) -> None:
    done = script(TRAINING.replace("OUT", of), into)
    assert done.returncode == 0
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith(f"standard {name} cannot be written: ")
    assert line.endswith(". The training goes on; what cannot be printed is lost.")


def test_a_training_prints_again_as_soon_as_there_is_room(tmp_path: Path) -> None:
    text = """
import resource, sys
from sft.guarded_output import going_on_without_output, output_guarded

def room(num_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

with output_guarded(), going_on_without_output():
    for number, num_bytes in enumerate((0, 0, 100)):
        room(num_bytes)
        print("step", number, flush=True)
"""
    done = script(text, f"> {tmp_path}/log")
    assert (done.returncode, (tmp_path / "log").read_text()) == (0, "step 2\n")


def test_a_training_that_nobody_watches_any_more_is_asked_to_stop_with_a_checkpoint(
    tmp_path: Path, unread: int
) -> None:
    text = f"""
import threading
from collections.abc import Iterator
from pathlib import Path
from launcher.interruption import signals_ask_to_stop
from sft.guarded_output import going_on_without_output, output_guarded

with output_guarded(), going_on_without_output(), signals_ask_to_stop(Path("{tmp_path}/STOP")):
    shown = threading.Thread(target=print, args=["a step"], kwargs=dict(flush=True))
    shown.start()
    shown.join()
    print("stopped", flush=True)
"""
    done = script(text, stdout=unread)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "STOP").is_file()


def test_a_closed_stream_is_taken_by_no_file(tmp_path: Path) -> None:
    text = f"""
import os
from sft.guarded_output import output_guarded

with output_guarded(), open("{tmp_path}/record", "w") as record:
    os.write(1, b"of a library")
    os.write(2, b"of a library")
    assert record.fileno() > 2
"""
    assert script(text, ">&- 2>&-").returncode == 0
    assert (tmp_path / "record").read_text() == ""


def test_training_takes_its_config_to_the_end_where_nothing_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        f"run: {{name: a, dir: {tmp_path}/run}}\nmodel: {{path: {tmp_path}/none}}\n"
        f"data: {{sources: [{{name: a, path: {tmp_path}/none.jsonl}}], cache_dir: {tmp_path}/cache}}\n"
        "stages: [{name: s, budget: {steps: 1}, optimizer: {lr: 1.0e-3}}]\n"
    )
    done = run(f"{SFT} train {tmp_path}/c.yaml > /dev/full")
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert (
        said[0] == f"standard output cannot be written: {FULL}. The training goes on; what cannot be printed is lost."
    )
    assert f"{tmp_path}/none" in said[1]
    assert "Traceback" not in done.stderr
