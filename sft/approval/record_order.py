"""In which order people see records, and which one is next.

    by_risk      the most doubtful first
    by_sample    a random sample of every length, in which each task has its share

Both are the same for everybody, the second with the same seed. A reviewer gets the first record of the order that
still needs somebody and that nobody else has open.
"""

import hashlib
from collections.abc import Callable, Container, Iterable, Sequence
from operator import attrgetter

import numpy as np

from sft.approval.opinions import Opinion
from sft.approval.record_set import Entry

_HALF = 2.0**64


def by_risk(entries: Iterable[Entry]) -> list[Entry]:
    """The most doubtful first; equal ones by their ids, which have nothing to do with what they are."""
    # Two sorts by one thing each are three times as fast as one by two.
    order = sorted(entries, key=attrgetter("id"))
    order.sort(key=attrgetter("risk"), reverse=True)
    return order


def by_sample(entries: Iterable[Entry], seed: int) -> list[Entry]:
    """Every beginning is a random sample, stratified in proportion.

    The i-th of the n records of a task, in a random order of its own, stands at (i + u) / n, with u random between 0
    and 1. So each task has as large a share of the first records as it has of all, within one record.
    """
    draw_of = _drawing(seed, "sample")
    known, by_task = [*entries], dict[str, list[int]]()
    for i, entry in enumerate(known):
        by_task.setdefault(entry.task, []).append(i)
    draws = np.frombuffer(b"".join(draw_of(entry.id) for entry in known), ">u8").reshape(-1, 2).astype(np.uint64)
    upper, lower = draws.T
    places = np.empty(len(known))
    for members in by_task.values():
        one = np.array(members)
        one = one[np.lexsort((lower[one], upper[one]))]
        # The lower half of the bits is independent of the upper one, by which they are sorted.
        places[one] = (np.arange(one.size) + lower[one] / _HALF) / one.size
    return [known[i] for i in np.lexsort((lower, upper, places))]


def is_for_two(record: str, share: float, seed: int) -> bool:
    """Whether two reviewers decide on this record, so that their agreement can be measured."""
    return int.from_bytes(_drawing(seed, "two")(record)) < share * _HALF**2


def next_entry(
    order: Sequence[Entry],
    opinion_of: Callable[[str], Opinion],
    reviewer: str,
    taken: Container[str],
    needs_two: Callable[[str], bool],
) -> Entry | None:
    """The record that the reviewer sees next, those that they have skipped last; None if there is none.

    Args:
        order: all records.
        opinion_of: a record's id → what all say.
        reviewer: whom it is for.
        taken: the ids of records that others have open.
        needs_two: whether two have to decide on the record with this id.
    """
    skipped = None
    for entry in order:
        opinion = opinion_of(entry.id)
        if reviewer in opinion.decided_by or entry.id in taken:
            continue
        is_open = opinion.state in ("open", "flagged")
        if is_open or (len(opinion.decided_by) < 2 and needs_two(entry.id)):
            if reviewer not in opinion.skipped_by:
                return entry
            skipped = skipped or entry
    return skipped


def _drawing(seed: int, name: str) -> Callable[[str], bytes]:
    """A number of 128 bits for a record, as bytes, that depends on these three alone."""
    begun = hashlib.blake2b(f"{seed}\x1f{name}\x1f".encode(), digest_size=16)

    def draw(record: str) -> bytes:
        hashed = begun.copy()
        hashed.update(record.encode())
        return hashed.digest()

    return draw
