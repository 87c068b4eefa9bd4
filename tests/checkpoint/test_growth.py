"""What may not grow with the number of ranks, counted at the storage (see `counting`).

What thousands of ranks cost is in docs/BENCHMARKS.md.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sft.checkpoint.open_storage import open_storage
from tests.checkpoint.counting import SIZES, CountedStorage, resume, save

RANKS = (4, 16, 64)
STATE_BYTES = 4 * sum(SIZES.values())
OF_A_RANK = 3000
"""Bytes: its receipt, its lines in the manifest."""


@pytest.fixture(params=["folder", "object storage"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"counted://{tmp_path.name}" if request.param == "object storage" else str(tmp_path)
    CountedStorage.store.clear()


def growth(values: list[int]) -> float:
    """How much steeper the second stretch is than the first; 1 where the values lie on a line."""
    first, second = (values[i + 1] - values[i] for i in (0, 1))
    return second / first / ((RANKS[2] - RANKS[1]) / (RANKS[1] - RANKS[0]))


def test_a_save_costs_a_rank_the_same_with_any_number_of_ranks_and_the_first_one_a_line(location: str) -> None:
    costs = [save(open_storage(f"{location}/{num}"), num, 1) for num in RANKS]
    assert len({cost.last.operations for cost in costs}) <= 2, "the first to come makes the folder"
    assert max(cost.last.operations for cost in costs) <= 25
    of_first = [cost.first.operations for cost in costs]
    assert growth(of_first) == pytest.approx(1.0, abs=0.25)
    assert (of_first[2] - of_first[0]) / (RANKS[2] - RANKS[0]) <= 6
    for num, cost in zip(RANKS, costs, strict=True):
        # Its own part to hash it, in object storage once more to upload it; of the others what they say of it.
        assert cost.first.bytes_read <= 2.2 * STATE_BYTES / num + OF_A_RANK * num + 20_000


def test_resuming_costs_a_rank_the_same_with_any_number_of_ranks(location: str) -> None:
    operations = set()
    for num in RANKS:
        storage = open_storage(f"{location}/{num}")
        save(storage, num, 1)
        for cost in resume(storage, num):
            operations.add(cost.operations)
            # Its own part, to check it, and to load it; the manifest says a little of each rank.
            assert cost.bytes_read <= 2.2 * STATE_BYTES / num + OF_A_RANK * num + 20_000
    assert len(operations) == 1


def test_half_as_many_ranks_read_two_files_each(location: str) -> None:
    operations = set()
    for num in RANKS:
        storage = open_storage(f"{location}/{num}")
        save(storage, num, 1)
        operations |= {cost.operations for cost in resume(storage, num // 2)}
    assert len(operations) == 1


def test_a_checkpoint_has_a_file_for_each_rank_and_one_more(tmp_path: Path) -> None:
    for num in RANKS:
        storage = open_storage(str(tmp_path / str(num)))
        save(storage, num, 1)
        assert sum(1 for path in (tmp_path / str(num)).rglob("*") if path.is_file()) == num + 1
