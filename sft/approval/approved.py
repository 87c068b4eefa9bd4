"""The records of a set that may be trained: after their edits, each with the mark of its approval."""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sft.approval.decisions import Decisions
from sft.approval.mark import Approval, content_id, marked
from sft.approval.opinions import Opinions
from sft.approval.record_set import identity, read_lines
from sft.approval.rule import sample_result
from sft.schema import JsonObject


def approvals(order: Sequence[str], opinions: Opinions, bound: float | None = None) -> dict[str, Approval]:
    """Id of a record of the set → its approval, for those that are approved.

    Args:
        order: the ids of all records, in the random order where there is a bound.
        opinions: what people say of them.
        bound: of the sample's error rate; None: each record is approved by itself.
    """
    sample = None if bound is None else _sample_approval(order, opinions, bound)
    found = {}
    for record in order:
        opinion = opinions.of(record)
        if opinion.is_approved:
            by = opinion.accepted_by - opinion.flagged_by
            time = _last_time(opinions.decisions, record, by)
            found[record] = Approval(opinion.id, "each", tuple(sorted(by)), time)
        elif sample is not None and opinion.state == "open":
            found[record] = replace(sample, record=opinion.id)
    return found


def records_to_train(
    path: Path,
    opinions: Opinions,
    found: Mapping[str, Approval],
    outcomes: Counter[str],
    unreviewed: bool = False,
) -> Iterator[JsonObject]:
    """The records that are approved, after their edits, in the order of the file.

    Args:
        path: the file of the set.
        opinions: what people say of its records.
        found: see `approvals`.
        outcomes: counts each line: `passed`, or why not: the state of the record, `equal` to another, `unreadable`.
        unreviewed: also those that nobody has approved and nobody rejects, without a mark.
    """
    given: set[str] = set()
    for _, fields in read_lines(path):
        if fields is None:
            outcomes["unreadable"] += 1
            continue
        record = identity(fields)
        opinion = opinions.of(record)
        if record not in found and (not unreviewed or opinion.state == "rejected"):
            outcomes[opinion.state] += 1
        elif opinion.id in given:
            outcomes["equal"] += 1
        else:
            given.add(opinion.id)
            outcomes["passed"] += 1
            version = fields if opinion.id == record else opinions.decisions.edited_fields(opinion.id)
            assert version is not None, "an edit that was read has made it"
            approval = found.get(record)
            yield marked(version, approval and replace(approval, record=content_id(version)))


def _sample_approval(order: Sequence[str], opinions: Opinions, bound: float) -> Approval | None:
    """Of the records that the sample stands for; None where it does not suffice."""
    result = sample_result(order, opinions.of, bound)
    if not result.suffices:
        return None
    reviewers: set[str] = set()
    times = [""]
    for record in order[: result.num_reviewed]:
        opinion = opinions.of(record)
        by = opinion.accepted_by | opinion.rejected_by
        reviewers |= by
        times.append(_last_time(opinions.decisions, record, by))
    named = tuple(sorted(reviewers))
    return Approval("", "sample", named, max(times), bound, result.num_reviewed, result.num_wrong)


def _last_time(decisions: Decisions, record: str, by: Container[str]) -> str:
    words = (decisions.last(version).items() for version in decisions.versions(record))
    return max((word.decision.time for said in words for who, word in said if who in by), default="")
