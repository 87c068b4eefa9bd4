"""What looking at a long run of many ranks costs, counted: lines of Python that run, bytes that are read and held.

What 512 ranks and 100,000 steps take is in docs/BENCHMARKS.md, measured on the same folder, only larger.
"""

import argparse
import sys
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

from benchmarks import large_run
from sft.monitoring.run_status import RunWatcher
from sft.run_folder import RunFolder
from sft.verification import artifacts, digests
from sft.verification.run_check import verify_run
from tests.checkpoint.counting import Cost, counted

SIZES = {
    name: {"ranks": 16, "steps": 25 if name == "ranks" else 100, "restarts": 3}
    for name in ("ranks", "steps", "restarts")
}
"""What grows → the smallest run; where it is the ranks, what grows with steps alone would hide it."""
TIMES = (1, 2, 4)
KIB = 1024


class Work(NamedTuple):
    lines: int
    bytes_read: int
    bytes_held: int
    """At the most."""


def work_of(do: Callable[[], Any]) -> Work:
    """What this process does in it, in all threads."""
    costs: list[Cost] = []
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    do()  # what is imported, or found once
    with counted(costs):
        do()
    held = min(_held(do), _held(do))  # in one of them Python's table of names may have grown
    before = sys.gettrace(), threading.gettrace()
    sys.settrace(trace)
    threading.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(before[0])
        threading.settrace(before[1])  # type: ignore[arg-type]  # takes None too, to switch it off
    return Work(lines, costs[0].bytes_read, held)


def _held(do: Callable[[], Any]) -> int:
    tracemalloc.start()
    do()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def is_no_steeper(values: Sequence[int]) -> bool:
    """Whether twice the size costs at the most twice as much again; of a square it would be four times."""
    first, second = (values[i + 1] - values[i] for i in (0, 1))
    return second <= 1.1 * 2 * first + 0.02 * values[0]


@pytest.fixture(params=["ranks", "steps", pytest.param("restarts", marks=pytest.mark.long)])
def runs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunFolder]:
    """Three that differ in one size."""
    monkeypatch.setattr(large_run, "NUM_EXAMPLES", 5000)
    runs, smallest = [], SIZES[request.param]
    for times in TIMES:
        size = smallest | {request.param: times * smallest[request.param]}
        large_run.make_run(argparse.Namespace(**size, tokens=4, file_bytes=64), tmp_path / str(times))
        runs.append(RunFolder(tmp_path / str(times) / "run"))
    return runs


def test_verifying_takes_what_was_trained_and_holds_little_of_it(
    runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_MAX_BLOCK_PACKS", 256)
    monkeypatch.setattr(digests, "_BLOCKS_A_TASK", 10**9)  # for each the store is opened anew
    monkeypatch.setattr(artifacts, "_MAX_THREADS", 1)  # each has a buffer
    work = [work_of(lambda run=run: verify_run(run)) for run in runs]
    assert not verify_run(runs[0]).findings
    assert is_no_steeper([each.lines for each in work])
    assert is_no_steeper([each.bytes_read for each in work])
    # A line of the ledger for each step, without its packs; a name, a size and a hash for each file.
    assert work[2].bytes_held - work[0].bytes_held < 180 * KIB


def test_the_state_takes_what_is_told_of_ranks_and_restarts_and_nothing_of_steps(
    runs: list[RunFolder], request: pytest.FixtureRequest
) -> None:
    work = [work_of(lambda run=run: RunWatcher(run).read()) for run in runs]
    assert is_no_steeper([each.lines for each in work])
    assert is_no_steeper([each.bytes_read for each in work])
    assert work[2].bytes_held - work[0].bytes_held < 180 * KIB
    watchers = [RunWatcher(run) for run in runs]
    again = [work_of(watcher.read) for watcher in watchers]
    assert is_no_steeper([each.lines for each in again])
    assert all(each.bytes_read < 4 * KIB for each in again), "what was read is not read again"
    if "steps" in request.node.callspec.params.values():
        assert work[2].lines < 1.02 * work[0].lines
        assert work[2].bytes_read < 1.02 * work[0].bytes_read
