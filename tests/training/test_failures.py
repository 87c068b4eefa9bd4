"""When another start is worth it, and when it is not."""

from pathlib import Path

import pytest

from sft.atomic_files import write_json
from sft.ranks.ranks import OneRank
from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.training.attempt import Attempt, record_failure
from sft.training.failures import is_of_the_machine
from sft.training.heartbeat import Heartbeat
from sft.training.last_words import GONE
from sft.training.restarts import pause_seconds, read_history, why_to_give_up
from sft.world import World


class Attempts:
    """Writes what the ranks of failed attempts leave behind."""

    def __init__(self, path: Path) -> None:
        self.run = RunFolder(path)
        self.number = 0

    def add(self, began_at: int | None, *errors: tuple[int, int, Exception], ranks: int = 2) -> None:
        """An attempt whose ranks met errors (rank, step, error)."""
        self.number += 1
        folder = self.run.attempt(self.number)
        folder.path.mkdir(parents=True)
        for rank in range(ranks):
            write_json(folder.rank(rank), {"pid": 100 + rank, "node": f"n{rank}"})
        if began_at is not None:
            EventLog(folder, 0).add("resumed", "", stage="broad", step=began_at)
        for rank, step, error in errors:
            heartbeat = Heartbeat(stage="broad")
            heartbeat.enter("train", step, (2 * step + rank,))
            record_failure(
                Attempt(self.number, OneRank(World(rank, ranks)), folder, EventLog(folder, rank), heartbeat), error
            )

    def reason(self, max_failures: int) -> str | None:
        return why_to_give_up(read_history(self.run, 1, self.number + 1, max_failures), max_failures)

    def pause(self) -> float:
        return pause_seconds(read_history(self.run, 1, self.number + 1, 3))


LOST_PEER = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.2]:31338")


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(tmp_path)


def test_an_error_that_comes_twice_at_the_same_step_is_named_and_not_tried_a_third_time(attempts: Attempts) -> None:
    attempts.add(0, (1, 7, ValueError("bad token")), (0, 7, LOST_PEER))
    assert attempts.reason(10) is None
    attempts.add(4, (1, 7, ValueError("bad token")), (0, 7, LOST_PEER))
    reason = attempts.reason(10)
    assert reason is not None
    assert "rank 1: stage broad, step 7, train, packs 15: ValueError: bad token" in reason


@pytest.mark.parametrize("second", [(1, 8, ValueError("bad token")), (1, 7, ValueError("another")), (1, 7, LOST_PEER)])
def test_another_step_another_error_or_a_lost_node_is_tried_again(
    attempts: Attempts, second: tuple[int, int, Exception]
) -> None:
    attempts.add(0, (1, 7, ValueError("bad token")))
    attempts.add(4, second)
    assert attempts.reason(10) is None


def test_lost_nodes_are_survived_as_often_as_there_is_progress(attempts: Attempts) -> None:
    for step in range(0, 400, 4):
        attempts.add(step, (0, step + 3, LOST_PEER))
        assert attempts.reason(1) is None
        assert attempts.pause() == 0


def test_starts_without_progress_are_bounded_and_come_later_and_later(attempts: Attempts) -> None:
    attempts.add(0, (0, 7, LOST_PEER))
    pauses = []
    for _ in range(3):
        assert attempts.reason(3) is None
        attempts.add(4, (0, 5, LOST_PEER))
        pauses.append(attempts.pause())
    assert pauses == [0, 2, 4]
    attempts.add(None)  # so early that nobody began to train
    reason = attempts.reason(3)
    assert reason is not None
    assert "4 starts in a row failed without a new checkpoint" in reason
    assert attempts.reason(-1) is None


@pytest.mark.parametrize(
    ("error", "of_the_machine"),
    [
        (LOST_PEER, True),
        (ConnectionResetError("reset"), True),
        (RuntimeError("NCCL error: remote process exited"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), True),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), True),
        (RuntimeError("CUDA error: uncorrectable NVLink error detected during the execution"), True),
        (RuntimeError("Invalid access of peer GPU memory over nvlink or a hardware error"), True),
        (AssertionError("DeepSpeed backend not set, please initialize it using init_process_group()"), True),
        (ValueError("Default process group has not been initialized, please make sure to call it"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (KeyError("x"), False),
    ],
)
def test_the_machines_errors_are_told_from_the_programs(error: Exception, of_the_machine: bool) -> None:
    assert is_of_the_machine(error) == of_the_machine


def test_what_follows_a_loss_is_not_taken_for_the_programs_error(attempts: Attempts) -> None:
    for step in (0, 4):
        attempts.add(step, (1, 7, ValueError("found nothing where a peer had been")))
        EventLog(attempts.run.attempt(attempts.number), "controller").add("lost", "its node was lost", how=GONE, rank=0)
    assert attempts.reason(10) is None


def test_an_error_behind_the_end_of_the_group_is_not_the_programs(attempts: Attempts, tmp_path: Path) -> None:
    for _ in range(2):
        attempts.add(0)
        folder = attempts.run.attempt(attempts.number)
        heartbeat = Heartbeat(stage="broad")
        heartbeat.enter("train", 7)
        attempt = Attempt(attempts.number, OneRank(World(1, 2)), folder, EventLog(folder, 1), heartbeat)
        attempt.release()
        record_failure(attempt, AssertionError("nothing is set"))
    assert attempts.reason(10) is None
