"""Every implementation of `Ranks` answers the same: one rank, threads, and processes over gloo."""

import torch

from sft.ranks.agreement import all_texts, any_rank
from sft.ranks.ranks import OneRank, Ranks
from tests.checkpoint.ranks import run_ranks as run_threads
from tests.distributed.launch import run_ranks as run_processes
from tests.distributed.scenarios import ask_the_others, exchange_parts


def expected(size: int) -> list[object]:
    texts = [f"rank {rank} says ü\n\0" * rank for rank in range(size)]  # the first has nothing to say
    return [
        [size * (size - 1) // 2, size, 2.0**60 * size],
        [size - 1, 1, 2.0**60],
        texts,
        [""] * size,
        sorted(texts[1:]),
        size == 3,
    ]


def test_one_rank_threads_and_processes_give_the_same_answers() -> None:
    assert ask_the_others({}, OneRank()) == expected(1)
    for size in (2, 3):
        for answer in run_threads(size, lambda ranks: ask_the_others({}, ranks)):
            assert answer == expected(size)
        assert run_processes(size, "ask_the_others", {}) == expected(size)


def test_what_is_asked_for_is_left_as_it_was() -> None:
    def main(ranks: Ranks) -> list[float]:
        mine = torch.tensor([float(ranks.world.rank)])
        ranks.sum(mine), ranks.max(mine)
        assert all_texts(ranks, None) == []
        assert not any_rank(ranks, False)
        return mine.tolist()

    assert run_threads(2, main) == [[0.0], [1.0]]


def test_ranks_of_a_group_exchange_parts_in_every_implementation() -> None:
    assert exchange_parts({}, OneRank()) == [[0.0], [0.0], [0]]
    for size, expected in ((4, [23, 33]), (5, [44])):  # the fifth is left over
        answers = run_threads(size, lambda ranks: exchange_parts({}, ranks), sequence_parallel=2)
        assert answers == [[expected] * 3] * size
        assert run_processes(size, "exchange_parts", {}, sequence_parallel=2) == [expected] * 3
