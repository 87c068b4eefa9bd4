"""How far people are with the records of a construction, as its card tells it."""

from collections import Counter
from dataclasses import dataclass

from sft.approval.decisions import DecisionFile
from sft.approval.opinions import Opinions
from sft.approval.record_set import find_place, open_records
from sft.approval.rule import reviewer_agreement
from sft.construction.folder import ConstructionFolder
from sft.errors import UserError


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What all reviewers together say."""

    num_records: int
    states: Counter[str]
    """How many records are accepted, edited, rejected, flagged, open."""
    by_reviewer: dict[str, Counter[str]]
    """Reviewer → how many records they approve, reject and flag."""
    last: str
    """The time of the last decision, in UTC."""
    agreement: list[str]
    """A sentence for each two reviewers who decided on the same records."""


def read_reviewed(folder: ConstructionFolder) -> Reviewed | None:
    """By the file of decisions; None where nobody has decided anything, or no record is kept.

    Raises:
        UserError: a file cannot be read.
    """
    place = find_place(folder.path)
    if not place.decisions.exists() or not place.records.stat().st_size:
        return None
    records = open_records(place.records)
    try:
        decisions = DecisionFile(place.decisions).read_new()
    except OSError as error:
        raise UserError(f"{place.decisions} cannot be read: {error.strerror or error}.") from error
    opinions = Opinions(records, decisions)
    states, by_reviewer = Counter[str](), dict[str, Counter[str]]()
    for entry in records.entries:
        opinion = opinions.of(entry.id)
        states[opinion.state] += 1
        for kind, who in (
            ("approved", opinion.accepted_by),
            ("rejected", opinion.rejected_by),
            ("flagged", opinion.flagged_by),
        ):
            for reviewer in who:
                by_reviewer.setdefault(reviewer, Counter())[kind] += 1
    if not decisions:
        return None
    agreement = [str(pair) for pair in reviewer_agreement(opinions.decisions)]
    last = max(decision.time for decision in decisions)
    return Reviewed(len(records), states, dict(sorted(by_reviewer.items())), last, agreement)
