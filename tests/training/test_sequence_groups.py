"""What is slow or impossible where ranks share micro-batches is said, once."""

from pathlib import Path

import pytest

from sft.errors import UserError
from sft.run_events import EventLog, read_events
from sft.run_folder import AttemptFolder
from sft.training.__main__ import with_groups
from sft.training.sequence_groups import tell_groups
from sft.world import World
from tests.checkpoint.ranks import Rank, run_ranks


def told(folder: Path, size: int, per_node: int, sequence_parallel: int) -> list[str]:
    """By ranks of which each node has so many."""

    def main(rank: Rank) -> None:
        number = rank.world.rank
        on_node = min(per_node, size - number // per_node * per_node)
        node = f"node-{number // per_node}"
        rank.world = World(number, size, number % per_node, node, on_node, sequence_parallel=sequence_parallel)
        tell_groups(rank, EventLog(AttemptFolder(folder), number))

    run_ranks(size, main, sequence_parallel)
    return [event.text for event in read_events(AttemptFolder(folder)) if event.kind == "sharing"]


def test_only_what_is_slow_is_told(tmp_path: Path) -> None:
    assert told(tmp_path, 8, 4, 1) == told(tmp_path, 8, 4, 2) == told(tmp_path, 8, 4, 4) == []


def test_groups_on_several_nodes_and_ranks_without_one_are_told(tmp_path: Path) -> None:
    (text,) = told(tmp_path, 7, 3, 2)
    assert "1 of 3 groups of 2 workers lie on several nodes" in text
    assert "1 of 7 workers make no whole group" in text


def test_ranks_that_make_no_group_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.sequence_parallel: 4 workers share each micro-batch, but there are 3"):
        told(tmp_path, 3, 3, 4)
    with pytest.raises(UserError, match="torchrun starts 3, which is not a multiple of it"):
        with_groups(World(0, 3), 2)
    assert with_groups(World(1, 4), 2).sequence_ranks == range(2)
