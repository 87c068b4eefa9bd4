"""What all reviewers together say of a record: of each of them the last word on any of its versions."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from sft.approval.decisions import Decision, Decisions, Word

State = Literal["accepted", "edited", "rejected", "flagged", "open"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What all reviewers together say of a record and of what edits have made of it."""

    id: str
    """Of the version that counts: another one than the record's after an edit."""
    is_edited: bool
    accepted_by: frozenset[str]
    """Who has accepted this very version, or has made it by an edit."""
    rejected_by: frozenset[str]
    flagged_by: frozenset[str]
    """Whoever has flagged a version cannot approve it alone, whatever they said later."""
    decided_by: frozenset[str]
    """Who has said anything but `skip`."""
    skipped_by: frozenset[str]
    """Who has said nothing else."""

    @property
    def state(self) -> State:
        """A rejection wins, then an approval by somebody who has not flagged it."""
        if self.rejected_by:
            return "rejected"
        if self.accepted_by - self.flagged_by:
            return "edited" if self.is_edited else "accepted"
        return "flagged" if self.flagged_by else "open"

    @property
    def is_approved(self) -> bool:
        """By the rule `each`."""
        return self.state in ("accepted", "edited")


def opinion_of(record: str, decisions: Decisions) -> Opinion:
    """The opinion on a record of the file: of each reviewer, the last word on any of its versions."""
    versions = decisions.versions(record)
    words: dict[str, Word] = {}
    flagged: set[str] = set()
    for version in versions:
        flagged |= decisions.flagged_by(version)
        for reviewer, word in decisions.last(version).items():
            if reviewer not in words or word.weight > words[reviewer].weight:
                words[reviewer] = word
    accepted, rejected = set(), set()
    for reviewer, word in words.items():
        verdict, seen = word.decision.verdict, word.decision.record
        if verdict == "reject":
            rejected.add(reviewer)
        elif (verdict == "accept" and seen == versions[-1]) or decisions.made_by(word.decision) == versions[-1]:
            accepted.add(reviewer)
    skipped = frozenset(who for who, word in words.items() if word.decision.verdict == "skip")
    return Opinion(
        versions[-1],
        versions[-1] != record,
        frozenset(accepted),
        frozenset(rejected),
        frozenset(flagged),
        frozenset(words) - skipped,
        skipped,
    )


class Opinions:
    """The opinions on all records of a set, which follow its decisions one by one."""

    def __init__(self, records: Container[str], decisions: Iterable[Decision] = ()) -> None:
        """`records`: knows the ids of the set."""
        self.decisions = Decisions()
        self._records = records
        self._origins: dict[str, set[str]] = {}
        """Of records that edits have made."""
        self._known: dict[str, Opinion] = {}
        self._untouched = opinion_of("", self.decisions)
        for decision in decisions:
            self.add(decision)

    def add(self, decision: Decision) -> set[str]:
        """Take a decision; returns the records of the set that it is about."""
        if not self.decisions.add(decision):
            return set()
        origins = self.origins(decision.record)
        if (made := self.decisions.made_by(decision)) is not None:
            self._origins[made] = self.origins(made) | origins
        for record in origins:
            self._known[record] = opinion_of(record, self.decisions)
        return origins

    def of(self, record: str) -> Opinion:
        """On a record of the set."""
        return self._known.get(record) or replace(self._untouched, id=record)

    def origins(self, record: str) -> set[str]:
        """The records of the set that are this one, or that edits have made it of; empty if it is unknown."""
        return self._origins.get(record) or ({record} if record in self._records else set())
