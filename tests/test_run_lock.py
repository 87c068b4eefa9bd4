"""One job at a time in a run folder, whatever happened to the one before."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import sft.run_lock
from sft.errors import UserError
from sft.run_lock import run_lock

ROOT = Path(__file__).parents[1]
BEAT, DEAD_AFTER = 0.05, 0.3

HOLDS = """
import sys, time
from pathlib import Path
from sft.run_lock import run_lock
def lost(text):
    print("lost", text, flush=True)
with run_lock(Path(sys.argv[1]), lost, beat_seconds=float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""

# As the driver does: it ends at once, and leaves the lock as it is.
ENDS_WHEN_LOST = HOLDS.replace(
    'print("lost", text, flush=True)', 'print("lost", text, flush=True); os._exit(1)'
).replace("import sys, time", "import os, sys, time")

# For each round: waits until the lock is there, tries to take it over, and holds it until the round is over.
TAKES_OVER = """
import sys, time
from pathlib import Path
from sft.run_lock import run_lock
from sft.errors import UserError
for folder in map(Path, sys.argv[2:]):
    while not (folder / "go").exists():
        pass
    try:
        with run_lock(folder / "driver.lock", print, dead_after_seconds=0.3):
            (folder / f"held-{sys.argv[1]}").touch()
            while not (folder / "over").exists():
                time.sleep(0.002)
    except UserError as error:
        (folder / f"refused-{sys.argv[1]}").write_text(str(error))
"""


def start(code, *arguments, **variables):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def start_holder(path, beat_seconds=5.0, code=HOLDS, **variables):
    process = start(code, path, beat_seconds, **variables)
    assert process.stdout.readline() == "held\n"
    return process


def end(process):
    process.kill()
    process.communicate()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "driver.lock"


@pytest.fixture(scope="module")
def dead_holder(tmp_path_factory):
    """What the lock file of a killed process of this machine says."""
    left = tmp_path_factory.mktemp("left") / "driver.lock"
    end(start_holder(left))
    return json.loads(left.read_text())


def never_lost(text):
    raise AssertionError(text)


def is_taken(path, **options):
    try:
        with run_lock(path, never_lost, **options):
            return True
    except UserError:
        return False


def test_it_is_there_while_it_is_held_and_gone_behind_it(path):
    with run_lock(path, never_lost):
        content = json.loads(path.read_text())
        assert content["pid"] == os.getpid()
        with pytest.raises(UserError, match=f"in use by another job: process {os.getpid()} on .+, since 20"):
            run_lock(path, never_lost).__enter__()
        assert json.loads(path.read_text()) == content
    assert list(path.parent.iterdir()) == []
    with pytest.raises(RuntimeError, match="the job failed"), run_lock(path, never_lost):
        raise RuntimeError("the job failed")
    assert list(path.parent.iterdir()) == []


def test_a_living_process_of_this_machine_refuses_at_once_and_is_named(path):
    holder = start_holder(path)
    try:
        started = time.monotonic()
        with pytest.raises(UserError, match=f"process {holder.pid} on .+, since 20.+Wait for it or stop it"):
            run_lock(path, never_lost).__enter__()
        assert time.monotonic() - started < 2
        assert holder.communicate("\n", timeout=30)[0] == "released\n"
    finally:
        end(holder)
    assert is_taken(path)


def test_a_killed_process_of_this_machine_is_taken_over_at_once_also_before_it_is_reaped(path):
    holder = start_holder(path)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the table of processes
    started = time.monotonic()
    assert is_taken(path)
    assert time.monotonic() - started < 2
    holder.communicate()


def test_a_process_that_got_the_pid_of_a_dead_one_is_not_taken_for_it(path, dead_holder):
    path.parent.mkdir()
    path.write_text(json.dumps({**dead_holder, "pid": os.getpid()}))
    assert is_taken(path)


def test_of_two_that_take_over_exactly_one_wins(tmp_path, dead_holder):
    folders = [tmp_path / f"round-{i}" for i in range(20)]
    for i, folder in enumerate(folders):
        folder.mkdir()
        # One time in ten the holder was on another node, and both watch it.
        machine = "another" if i % 10 == 0 else dead_holder["machine"]
        (folder / "driver.lock").write_text(json.dumps({**dead_holder, "nonce": f"n{i}", "machine": machine}))
    takers = [start(TAKES_OVER, name, *folders) for name in "ab"]
    try:
        for folder in folders:
            (folder / "go").touch()
            wait_until(lambda folder=folder: len(list(folder.glob("held-*")) + list(folder.glob("refused-*"))) == 2)
            assert len(list(folder.glob("held-*"))) == 1
            (refused,) = folder.glob("refused-*")
            wait_until(lambda refused=refused: "in use by another job" in refused.read_text())  # it is being written
            (folder / "over").touch()
        for taker in takers:
            assert taker.wait(30) == 0
            assert taker.stdout.read() == ""  # nobody lost what it held
    finally:
        for taker in takers:
            end(taker)
    for folder in folders:
        assert not [p.name for p in folder.iterdir() if "lock" in p.name]


def wait_until(is_so, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def write_foreign(path, dead_holder, beat=0):
    path.parent.mkdir(exist_ok=True)
    content = {**dead_holder, "node": "far-away", "machine": "another", "nonce": "foreign", "beat": beat}
    aside = path.with_name("aside")
    aside.write_text(json.dumps(content))
    aside.replace(path)


def test_a_holder_on_another_node_is_dead_when_its_beat_stands_still(path, dead_holder):
    write_foreign(path, dead_holder)
    said = []
    started = time.monotonic()
    assert is_taken(path, say=said.append, dead_after_seconds=DEAD_AFTER)
    assert time.monotonic() - started >= DEAD_AFTER
    assert len(said) == 1
    assert "far-away" in said[0]


def test_a_holder_on_another_node_that_beats_refuses(path, dead_holder):
    write_foreign(path, dead_holder)
    ended = threading.Event()

    def beat():
        for number in range(1, 1000):
            if ended.wait(BEAT):
                return
            write_foreign(path, dead_holder, number)

    other = threading.Thread(target=beat)
    other.start()
    try:
        with pytest.raises(UserError, match="process .+ on far-away"):
            run_lock(path, never_lost, dead_after_seconds=30).__enter__()
    finally:
        ended.set()
        other.join()
    assert json.loads(path.read_text())["nonce"] == "foreign"


def test_a_lock_that_is_released_while_it_is_watched_is_free(path, dead_holder):
    write_foreign(path, dead_holder)
    threading.Timer(0.2, path.unlink).start()
    started = time.monotonic()
    assert is_taken(path, dead_after_seconds=20)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("content", ["", '{"node": "a"', "[]"])
def test_half_a_lock_counts_as_dead_after_a_while(path, content):
    path.parent.mkdir()
    path.write_text(content)
    assert is_taken(path, dead_after_seconds=DEAD_AFTER)


def test_the_holder_beats_and_survives_the_loss_of_its_file(path):
    with run_lock(path, never_lost, beat_seconds=BEAT):
        first = json.loads(path.read_text())
        wait_until(lambda: json.loads(path.read_text())["beat"] > first["beat"] + 1)
        path.unlink()
        wait_until(path.exists)
        wait_until(lambda: path.read_text() and json.loads(path.read_text())["nonce"] == first["nonce"])
    assert list(path.parent.iterdir()) == []


def test_who_was_taken_over_is_told_and_leaves_the_lock_to_the_other(path, dead_holder):
    said = []
    with run_lock(path, said.append, beat_seconds=BEAT):
        write_foreign(path, dead_holder)
        wait_until(lambda: said)
        assert "far-away" in said[0]
        time.sleep(4 * BEAT)
    assert len(said) == 1
    assert json.loads(path.read_text())["nonce"] == "foreign"


def test_a_process_that_was_suspended_while_another_took_over_says_so_when_it_wakes(path, dead_holder):
    holder = start_holder(path, 4 * BEAT)
    try:
        wait_until(lambda: json.loads(path.read_text())["beat"] == 1)
        holder.send_signal(signal.SIGSTOP)
        write_foreign(path, dead_holder)
        holder.send_signal(signal.SIGCONT)
        assert holder.stdout.readline().startswith("lost ")
        assert holder.communicate("\n", timeout=30)[0] == "released\n"
    finally:
        end(holder)
    assert json.loads(path.read_text())["nonce"] == "foreign"


@pytest.mark.parametrize("machine", ["this", "another"])
def test_an_earlier_attempt_of_the_same_job_is_asked_to_end_and_waited_for(path, monkeypatch, machine):
    elder = start_holder(path, BEAT, ENDS_WHEN_LOST, SFT_JOB="lab 7", SFT_JOB_ATTEMPT="1")
    monkeypatch.setenv("SFT_JOB", "lab 7")
    monkeypatch.setenv("SFT_JOB_ATTEMPT", "2")
    if machine == "another":
        monkeypatch.setattr(sft.run_lock, "_machine", lambda: "another")
    said = []
    try:
        with run_lock(path, never_lost, said.append, dead_after_seconds=20 * BEAT):
            assert elder.wait(10) == 1
            assert f"A later attempt of this job (lab 7) waits for {path}" in elder.stdout.read()
            assert json.loads(path.read_text())["pid"] == os.getpid()
    finally:
        end(elder)
    assert said[-1] == "That is an earlier attempt of this job (lab 7) and still at work: it is asked to end"
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("variables", [{}, {"SFT_JOB": "lab 7", "SFT_JOB_ATTEMPT": "1"}, {"SFT_JOB": "lab 8"}])
def test_whoever_is_no_later_attempt_of_the_holders_job_is_refused(path, monkeypatch, variables):
    holder = start_holder(path, BEAT, SFT_JOB="lab 7", SFT_JOB_ATTEMPT="2")
    try:
        for name, value in ({"SFT_JOB_ATTEMPT": "3"} | variables).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match="in use by another job"):
            run_lock(path, never_lost).__enter__()
        assert holder.communicate("\n", timeout=30)[0] == "released\n"
    finally:
        end(holder)


@pytest.fixture
def without_proc(monkeypatch, tmp_path):
    """A system that does not tell of its processes, such as macOS."""
    monkeypatch.setattr(sft.run_lock, "_PROC", tmp_path / "not there")


def test_where_the_system_does_not_tell_a_killed_holder_is_dead_when_its_beat_stands_still(path, without_proc):
    with run_lock(path, never_lost):
        left = json.loads(path.read_text())
    assert left["machine"] is None
    path.write_text(json.dumps(left))
    assert is_taken(path, dead_after_seconds=DEAD_AFTER)


def test_where_the_system_does_not_tell_a_holder_that_beats_refuses(path, without_proc):
    with run_lock(path, never_lost, beat_seconds=BEAT), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        run_lock(path, never_lost, dead_after_seconds=30).__enter__()


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match=r"run\.dir: .+run cannot be written: .+ Give a writable folder"):
        run_lock(tmp_path / "run" / "driver.lock", never_lost).__enter__()
