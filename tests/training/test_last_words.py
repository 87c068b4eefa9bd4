"""Why an attempt ended: the cause, whoever spoke first; and no healthy rank or node is blamed."""

from pathlib import Path

import pytest

from sft.atomic_files import write_json
from sft.ranks.ranks import OneRank
from sft.run_events import EventLog, read_events
from sft.run_folder import AttemptFolder
from sft.training.attempt import Attempt, record_failure
from sft.training.heartbeat import Heartbeat
from sft.training.last_words import GONE, NODE, NOT_KNOWN, RAISED, RAY, describe_end, is_lost
from sft.world import World

LOST_PEER = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.2]:31338")


class Ended:
    """An attempt of some ranks, each on a node of its own; whoever leaves a word does so in this order."""

    def __init__(self, folder: AttemptFolder, num_ranks: int = 3) -> None:
        self.folder = folder
        for rank in range(num_ranks):
            write_json(folder.rank(rank), {"pid": 100 + rank, "node": f"n{rank}"})

    def attempt(self, rank: int) -> Attempt:
        heartbeat = Heartbeat(stage="broad")
        heartbeat.enter("train", 7)
        return Attempt(1, OneRank(World(rank)), self.folder, EventLog(self.folder, rank), heartbeat)

    def failed(self, rank: int, error: Exception = LOST_PEER) -> None:
        record_failure(self.attempt(rank), error)

    def released(self, rank: int) -> None:
        self.attempt(rank).release()

    def ray_says(self, text: str, how: str, **facts: object) -> None:
        EventLog(self.folder, "controller").add("lost", text, how=how, **facts)

    @property
    def why(self) -> str:
        return describe_end(self.folder)


@pytest.fixture
def ended(tmp_path: Path) -> Ended:
    return Ended(AttemptFolder(tmp_path))


def test_the_programs_error_is_told_and_not_the_broken_connections_before_it(ended: Ended) -> None:
    ended.failed(0)
    ended.failed(1, ValueError("bad token"))
    ended.failed(2)
    assert ended.why == "rank 1, stage broad, step 7, train: ValueError: bad token"


def test_of_two_errors_of_the_program_the_first_is_told(ended: Ended) -> None:
    ended.failed(2, ValueError("first"))
    ended.failed(0, ValueError("second"))
    assert "rank 2" in ended.why


def test_whom_ray_saw_die_is_named_with_its_reason_though_others_are_silent(ended: Ended) -> None:
    """With NCCL the survivors block until their group is ended, and say nothing of an error."""
    ended.ray_says("its node was lost", GONE, rank=1)
    ended.released(0)
    ended.released(2)
    assert ended.why == "rank 1 (node n1, pid 101) was gone: its node was lost"


def test_a_rank_that_was_cut_off_is_named_though_it_spoke_of_a_lost_peer_and_a_healthy_one_was_silent(
    ended: Ended,
) -> None:
    ended.failed(1)  # its storage is there, its network is not
    ended.failed(0)
    ended.released(2)
    ended.ray_says("node n1 has left the Ray cluster", NODE, node="n1")
    assert ended.why == "rank 1 (node n1, pid 101) was gone: node n1 has left the Ray cluster"


def test_the_programs_error_explains_a_process_that_died_of_it(ended: Ended) -> None:
    ended.failed(1, ValueError("bad token"))
    ended.ray_says("its process was killed or has crashed", GONE, rank=1)
    assert "ValueError: bad token" in ended.why
    assert not is_lost(read_events(ended.folder))


def test_what_follows_from_a_dead_process_is_not_told_for_it(ended: Ended) -> None:
    ended.failed(0, IndexError("a consequence with a text of its own"))
    ended.ray_says("its process was killed or has crashed", GONE, rank=1)
    assert ended.why.startswith("rank 1 ")
    assert is_lost(read_events(ended.folder))


def test_a_lost_ray_explains_everything(ended: Ended) -> None:
    ended.failed(0)
    ended.failed(2, ValueError("nothing was where Ray had been"))
    ended.ray_says("its process was killed or has crashed", GONE, rank=1)
    EventLog(ended.folder, "driver").add("lost", "Ray's raylet on this machine was killed by signal 9", how=RAY)
    assert ended.why == "Ray's raylet on this machine was killed by signal 9"


def test_a_broken_device_is_told_before_the_lost_connections(ended: Ended) -> None:
    ended.failed(0)
    ended.failed(2, RuntimeError("CUDA error: uncorrectable ECC error encountered"))
    assert ended.why.startswith("rank 2, ")


def test_an_error_that_only_ray_saw_is_told(ended: Ended) -> None:
    """The rank could not write: the disk of the run folder is full."""
    ended.ray_says("OSError: [Errno 28] No space left on device", RAISED, rank=0, follows=False)
    assert ended.why == "rank 0 (node n0, pid 100): OSError: [Errno 28] No space left on device"


def test_of_those_who_did_not_speak_nobody_is_blamed_alone(ended: Ended) -> None:
    ended.failed(0)
    assert ended.why.startswith("at least one of rank 1 (node n1, pid 101), rank 2 (node n2, pid 102) was gone")
    ended.failed(2)
    assert ended.why == "rank 1 (node n1, pid 101) was gone: killed, out of memory, or its node was lost"
    ended.released(1)
    assert ended.why.startswith("not known which rank was first: rank 0, ")


def test_who_does_not_answer_when_the_group_is_ended_is_named(ended: Ended) -> None:
    ended.released(0)
    ended.released(2)
    assert ended.why == "rank 1 (node n1, pid 101) no longer answered: stopped, or its machine was lost"


def test_a_node_that_is_taken_away_is_the_reason_where_nothing_else_is(ended: Ended) -> None:
    ended.attempt(0).events.add("notice", "Ray will take away n1: a checkpoint is saved now")
    for rank in range(3):
        ended.released(rank)
    assert "n1" in ended.why
    assert "taken away" in ended.why


def test_where_nobody_knows_that_is_said(ended: Ended) -> None:
    assert ended.why == NOT_KNOWN
