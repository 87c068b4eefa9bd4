"""Rounds of constructing: a sample of what is made is read, and what it shows decides what the next round makes.

    plan ──sft construct──▶ records ──a sample, read──▶ the gate opens, or: what was seen ──lesson──▶ the next plan

A lesson is what a person could learn from the same sample: which tasks the teacher knows, and above which loss of its
own its answers are mostly wrong. Each round has a folder, drafts and a sample of its own, so no record decides on the
plan by which it is judged.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sft.approval.decisions import DecisionFile
from sft.approval.opinions import Opinions
from sft.approval.record_order import by_sample
from sft.approval.record_set import find_place, open_records
from sft.approval.rule import SampleResult, sample_result

BOUND = 0.1
"""Of the error rate: a sample that stands for a batch shows that it is lower."""
LEAST_SEEN = 8
"""Records of a task; of fewer, nothing is learned."""
_MOST_WRONG = BOUND / 2
"""Of the records of a task that a lesson keeps: half of the bound, so that the next sample can show it soon."""
_LOSSES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""What a lesson may choose, beside the bound that there was; the widest first."""
ACCEPTED = "accepted"


class Plan(NamedTuple):
    """What a round asks for, and what its filter keeps."""

    tasks: tuple[str, ...]
    max_loss: float | None = None
    """Of an answer, in the mean of its tokens, for the teacher that wrote it; None: any."""


class Seen(NamedTuple):
    """A record of a sample."""

    task: str
    loss: float
    reason: str
    """`ACCEPTED`, or why it was rejected."""


def read_sample(folder: Path, bound: float = BOUND) -> tuple[SampleResult, list[Seen]]:
    """What was read of a folder's records, and what that says of all."""
    place = find_place(folder)
    records = open_records(place.records)
    decisions = DecisionFile(place.decisions).read_new()
    opinions = Opinions(records, decisions)
    order = [entry.id for entry in by_sample(records.entries, 0)]
    reasons = {one.record: one.reason for one in decisions if one.verdict == "reject"}
    seen = []
    for record in order:
        if opinions.of(record).state != "open":
            fields: dict[str, Any] = records.read(record) or {}
            loss = fields["provenance"]["scores"].get("loss", 0.0)
            seen.append(Seen(records.entry(record).task, loss, reasons.get(record, ACCEPTED)))
    return sample_result(order, opinions.of, bound), seen


def lesson(plan: Plan, seen: Sequence[Seen]) -> Plan | None:
    """The next plan; None if the sample shows no other one.

    Of all bounds of the loss that one which keeps most of what was right, with the tasks of which then hardly anything
    is wrong.
    """
    best, most = None, 0
    for bound in (plan.max_loss, *(loss for loss in _LOSSES if plan.max_loss is None or loss < plan.max_loss)):
        kept = [one for one in seen if bound is None or one.loss <= bound]
        tasks = _known(kept)
        num = sum(one.task in tasks and one.reason == ACCEPTED for one in kept)
        if num > most:
            best, most = Plan(tasks, bound), num
    return None if best == plan else best


def _known(seen: Iterable[Seen]) -> tuple[str, ...]:
    """The tasks of which enough was seen, and hardly anything is wrong."""
    num, wrong = Counter[str](), Counter[str]()
    for one in seen:
        num[one.task] += 1
        wrong[one.task] += one.reason != ACCEPTED
    return tuple(sorted(task for task in num if num[task] >= LEAST_SEEN and wrong[task] <= _MOST_WRONG * num[task]))
