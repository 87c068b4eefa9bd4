"""Ranks that stand still: real processes, one of them stopped or asleep; the others say which, and end."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sft.attempt_record import RankProcess, read_ranks, write_rank
from sft.ranks.torch_ranks import TorchRanks
from sft.run_events import EventLog, read_events
from sft.run_folder import AttemptFolder
from sft.training.collective_trace import waiting_in
from sft.training.hang_watch import EXIT_HUNG, HangWatch, describe_hang
from sft.training.heartbeat import Heartbeat
from sft.world import World
from tests.forked_ranks import warm_command, zygote

ROOT = Path(__file__).parents[2]

RANK = """
import sys, time
from pathlib import Path
from sft.attempt_record import write_rank
from sft.run_events import EventLog
from sft.run_folder import AttemptFolder
from sft.training.hang_watch import HangWatch
from sft.training.heartbeat import Heartbeat
from sft.world import World

rank, size, last, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), AttemptFolder(Path(sys.argv[4]))
world, heartbeat = World(rank, size, 0, f"n{rank}"), Heartbeat()
write_rank(folder, world)
HangWatch(heartbeat, world, folder, EventLog(folder, rank), 1.0).start()
for step in range(last):
    heartbeat.enter("train", step, stage="broad")
    time.sleep(0.05)
(folder.path / f"{rank}.waits").touch()
def wait_for_the_others(): time.sleep(60)
wait_for_the_others()
"""


def run(folder: Path, steps: list[int], stopped: int | None = None) -> list[str]:
    """The stderr of each rank, after a run in which rank r stands still after `steps[r]` steps."""
    script = folder / "rank.py"
    script.write_text(RANK)
    ranks = []
    for rank, last in enumerate(steps):
        command = warm_command(str(script), str(rank), str(len(steps)), str(last), str(folder))
        with (folder / f"{rank}.log").open("wb") as log:
            ranks.append(subprocess.Popen(command, stderr=log, cwd=ROOT))
    try:
        deadline = time.monotonic() + 30
        while len(list(folder.glob("*.waits"))) < len(steps):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if stopped is not None:
            os.kill(read_ranks(AttemptFolder(folder))[stopped].pid, signal.SIGSTOP)
        left = [rank for rank in range(len(steps)) if rank != stopped]
        assert [ranks[rank].wait(30) for rank in left] == [EXIT_HUNG] * len(left)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    return [(folder / f"{rank}.log").read_text() for rank in left]


def test_the_rank_that_is_behind_is_named_and_the_stacks_are_there(tmp_path: Path) -> None:
    errors = run(tmp_path, [3, 2, 3])
    for error in errors:
        assert "wait_for_the_others" in error, "the stack says where it stands"
    assert "rank 1 (node n1, pid " in errors[0]
    assert "is behind the others, at stage broad, step 1, train" in errors[0]
    [event] = [event for event in read_events(AttemptFolder(tmp_path)) if event.kind == "hung"]
    assert event.rank == 0, "one speaks for all"
    assert event.text in errors[0]


def test_a_rank_that_is_stopped_is_named_by_the_others(tmp_path: Path) -> None:
    for error in run(tmp_path, [2, 2], stopped=1):
        assert f"no sign of life from rank 1 ({read_ranks(AttemptFolder(tmp_path))[1]})" in error


@pytest.mark.parametrize(("passed", "said"), [([4, 4], "all ranks are at the same place"), ([5, 4], "rank 1 ")])
def test_who_is_behind_has_passed_fewer_places(passed: list[int], said: str) -> None:
    ranks = {rank: RankProcess(1, "a") for rank in range(2)}
    reports = {rank: {"passed": count, "where": "step 1", "waits_for": ()} for rank, count in enumerate(passed)}
    assert describe_hang(reports, ranks).startswith(said)


SUSPENDED = """
import os, sys
from pathlib import Path
from sft.run_events import EventLog
from sft.run_folder import AttemptFolder
from sft.training.hang_watch import HangWatch
from sft.training.heartbeat import Heartbeat
from sft.world import World

folder = AttemptFolder(Path(sys.argv[1]))
heartbeat = Heartbeat()
HangWatch(heartbeat, World(), folder, EventLog(folder, 0), 1.0).start()
heartbeat.enter("train", 1, stage="broad")
print(os.getpid(), flush=True)
sys.stdin.readline()  # as if it waited for another rank, which is suspended, too
heartbeat.enter("train", 2)
sys.stdin.readline()
"""


def test_time_in_which_the_process_was_suspended_does_not_count(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(SUSPENDED)
    with (tmp_path / "log").open("wb") as log:
        rank = subprocess.Popen(
            warm_command(str(script), str(tmp_path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            bufsize=1,
        )
    assert rank.stdin is not None
    assert rank.stdout is not None
    try:
        pid = int(rank.stdout.readline())
        for _ in range(2):
            os.kill(pid, signal.SIGSTOP)
            # Longer than its timeout, and than that for which Python itself may stand still.
            with pytest.raises(subprocess.TimeoutExpired):
                rank.wait(3)
            os.kill(pid, signal.SIGCONT)
            rank.stdin.write("go on\n")
        assert rank.wait(30) == 0
    finally:
        rank.kill()
        rank.communicate()
    assert "No progress" not in (tmp_path / "log").read_text()


def test_a_rank_that_goes_on_while_the_others_report_is_not_ended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    heartbeat, ended, folder = Heartbeat(), threading.Event(), AttemptFolder(tmp_path)
    watch = HangWatch(heartbeat, World(), folder, EventLog(folder, 0), 0.8, lambda code: ended.set())
    report = folder.hang_report(0)
    heartbeat.enter("train", 1, stage="broad")
    watch.start()
    try:
        wait_until(report.exists)
        heartbeat.enter("train", 2)
        wait_until(lambda: not report.exists())
        assert not ended.is_set()
        write_rank(folder, World())
        assert ended.wait(30), "it is looked at anew"
    finally:
        watch.stop()
    [event] = read_events(folder)
    assert "step 2" in event.facts["where"]
    assert "It goes on, at stage broad, step 2" in capfd.readouterr().err


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def stand_in_collectives(rank: int, size: int, folder: str) -> None:
    """Rank 0 waits in the second collective, which the other does not begin."""
    where, heartbeat, world = AttemptFolder(Path(folder)), Heartbeat(), World(rank, size, 0, f"n{rank}")
    write_rank(where, world)
    heartbeat.enter("train", 1, stage="broad")
    HangWatch(heartbeat, world, where, EventLog(where, rank), 1.0).start()
    ranks = TorchRanks(world)
    ranks.sum(torch.ones(3))
    if rank == 0:
        ranks.sum(torch.ones(2, 5))
    time.sleep(60)


@pytest.mark.skipif(not hasattr(torch._C._distributed_c10d, "_dump_fr_trace_json"), reason="torch 2.11 has no recorder")
def test_the_collective_in_which_a_rank_waits_is_told_and_what_torch_recorded_is_kept(tmp_path: Path) -> None:
    recorded = {"TORCH_FR_BUFFER_SIZE": "100"}
    codes = zygote().start(stand_in_collectives, 2, tmp_path / "out", str(tmp_path), variables=recorded)
    assert codes == [EXIT_HUNG, EXIT_HUNG]
    [event] = [event for event in read_events(AttemptFolder(tmp_path)) if event.kind == "hung"]
    assert event.text.endswith("; rank 0 waits in all_reduce 2 of group 0, 2 x 5 Float")
    trace = json.loads(AttemptFolder(tmp_path).collectives(1).read_text())
    assert [entry["input_sizes"] for entry in trace["entries"]] == [[[3]]]


def test_nccl_says_whether_a_collective_is_on_the_gpu() -> None:
    done = {"record_id": 6, "state": "completed", "retired": True}
    one = {"record_id": 7, "state": "scheduled", "retired": False, "profiling_name": "nccl:_all_gather_base"}
    more = {
        "collective_seq_id": 9,
        "process_group": ["0", "default_pg"],
        "input_sizes": [[4]],
        "input_dtypes": ["Half"],
    }
    assert waiting_in({"entries": [done]}) is None
    assert waiting_in({"entries": [done, one | more]}) == "_all_gather_base 9 of group 0, 4 Half, not yet on the GPU"
