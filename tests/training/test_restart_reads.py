"""What the first rank reads of attempts that have failed, before it starts again, grows with nothing but the ranks."""

from pathlib import Path

import pytest

from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.training.last_words import describe_end
from sft.training.restarts import pause_seconds, read_history, why_to_give_up
from tests.checkpoint.counting import Cost, counted

RANKS = (4, 16, 64)


def fail_and_start_again(run: RunFolder, num_ranks: int, num_attempts: int) -> Cost:
    """Attempts in which every rank met an error; what the first rank of the next one reads to learn of them."""
    for attempt in range(1, num_attempts + 1):
        folder = run.attempt(attempt)
        folder.path.mkdir(parents=True)
        for rank in range(num_ranks):
            folder.rank(rank).write_text('{"pid": 1, "node": "a"}')
            events = EventLog(folder, rank)
            if rank == 0:
                events.add("resumed", "begins", stage="only", step=attempt)
            facts = {"of": "machine", "error": "ConnectionError: …", "stage": "only", "step": attempt, "place": "train"}
            events.add("failed", f"stage only, step {attempt}, train: ConnectionError: closed by peer", **facts)
    found: list[Cost] = []
    with counted(found):
        describe_end(run.attempt(num_attempts))
        history = read_history(run, 1, num_attempts + 1, 3)
        assert why_to_give_up(history, 3) is None
        pause_seconds(history)
    return found[0]


def test_learning_from_the_past_costs_a_few_reads_a_rank_however_often_it_has_failed(tmp_path: Path) -> None:
    few, more, many = (fail_and_start_again(RunFolder(tmp_path / f"{num}"), num, 3).operations for num in RANKS)
    assert (many - more) / (RANKS[2] - RANKS[1]) == pytest.approx((more - few) / (RANKS[1] - RANKS[0]), abs=0.5)
    often = fail_and_start_again(RunFolder(tmp_path / "often"), RANKS[0], 40).operations
    assert often == fail_and_start_again(RunFolder(tmp_path / "oftener"), RANKS[0], 60).operations
