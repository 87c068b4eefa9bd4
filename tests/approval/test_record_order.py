"""Records come by risk or as a random sample, the same for everybody; nobody gets what another has open."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sft.approval.decisions import Decisions
from sft.approval.opinions import opinion_of
from sft.approval.record_order import by_risk, by_sample, is_for_two, next_entry
from sft.approval.record_set import Entry
from tests.approval.test_decisions import decision

TASKS = st.lists(st.sampled_from("aaaabbc"), min_size=1, max_size=60)


def entries(tasks: list[str]) -> list[Entry]:
    return [Entry(f"r{i}", task, (i % 3) / 2, i) for i, task in enumerate(tasks)]


@given(TASKS, st.integers(0, 5))
def test_every_beginning_of_the_sample_has_each_task_in_proportion(tasks, seed) -> None:
    order = by_sample(entries(tasks), seed)
    assert sorted(order) == sorted(entries(tasks))
    sizes, seen = Counter(tasks), Counter()
    for num, entry in enumerate(order, 1):
        seen[entry.task] += 1
        assert all(abs(seen[task] - num * sizes[task] / len(tasks)) <= len(sizes) for task in sizes)


@given(TASKS, st.integers(0, 5))
def test_an_order_is_of_the_records_and_the_seed_alone(tasks, seed) -> None:
    here = entries(tasks)
    assert by_sample(here, seed) == by_sample(here[::-1], seed)
    assert by_risk(here) == by_risk(here[::-1])
    assert [entry.risk for entry in by_risk(here)] == sorted((e.risk for e in here), reverse=True)


def test_every_record_is_as_likely_to_be_in_the_sample() -> None:
    here = entries(["a"] * 8 + ["b"] * 2)
    halves = Counter(entry.id for seed in range(1000) for entry in by_sample(here, seed)[:5])
    assert all(420 < halves[entry.id] < 580 for entry in here), "500 each, ± 5 standard errors"


def test_the_share_for_two_is_as_large_as_asked_for() -> None:
    assert 150 < sum(is_for_two(f"r{i}", 0.2, 7) for i in range(1000)) < 250
    assert not any(is_for_two(f"r{i}", 0.0, 7) for i in range(100))


def test_the_next_record_is_open_not_taken_and_what_was_skipped_comes_last() -> None:
    here = entries(["a"] * 4)
    said = [
        decision("1", "r0", "accept", "lee"),
        decision("2", "r1", "skip", "kim"),
        decision("3", "r2", "flag", "lee"),
    ]

    def given_to(reviewer: str, *more: object, taken: frozenset[str] = frozenset(), two: bool = False) -> str | None:
        decisions = Decisions([*said, *more])  # type: ignore[list-item]
        found = next_entry(here, lambda record: opinion_of(record, decisions), reviewer, taken, lambda record: two)
        return found and found.id

    assert given_to("kim") == "r2", "flagged, for a second person"
    assert given_to("lee") == "r1"
    assert given_to("kim", taken=frozenset({"r2"})) == "r3"
    assert given_to("kim", taken=frozenset({"r2", "r3"})) == "r1"
    assert given_to("kim", two=True) == "r0"
    assert given_to("kim", decision("4", "r0", "accept"), two=True) == "r2"
    assert given_to("max", decision("4", "r0", "accept"), two=True) == "r1", "two have decided"
    edited = decision("5", "r3", "edit", "lee", "x")
    assert given_to("kim", edited, taken=frozenset({"r1", "r2"})) is None
