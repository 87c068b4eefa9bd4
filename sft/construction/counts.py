"""Counts how the scripts of a construction ended: nothing is lost."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sft.construction.script import Dropped, Failed
from sft.construction.work import Ended

MOST_REASONS = 50
OTHER = "other reasons"


@dataclass(slots=True)
class Counts:
    """How the scripts ended: made is kept and dropped; those that made nothing are counted by their reasons."""

    wanted: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By filter and reason."""
    not_made: Counter[str] = field(default_factory=Counter)
    """By reason."""
    num_open: int = 0
    """Of those not made, or dropped because a grade or a loss is not there: the same command goes on with them."""

    def add(self, ended: Ended) -> None:
        """Count a script."""
        outcome = ended.outcome
        self.wanted += 1
        if isinstance(outcome, Failed):
            self.not_made[_known(outcome.reason, self.not_made)] += 1
            self.num_open += not outcome.is_final
        elif isinstance(outcome, Dropped):
            self.dropped[_known(f"{outcome.filter}: {outcome.reason}", self.dropped)] += 1
            self.num_open += not outcome.is_final
        else:
            self.kept += 1

    def as_json(self) -> dict[str, Any]:
        """The counts; that nothing is lost is checked.

        Raises:
            AssertionError: a script is not counted once.
        """
        assert self.wanted == self.kept + self.dropped.total() + self.not_made.total(), self
        return {
            "num_wanted": self.wanted,
            "num_made": self.kept + self.dropped.total(),
            "num_kept": self.kept,
            "num_dropped": self.dropped.total(),
            "num_not_made": self.not_made.total(),
            "num_open": self.num_open,
            "dropped": dict(self.dropped.most_common()),
            "not_made": dict(self.not_made.most_common()),
        }


def _known(reason: str, counted: Mapping[str, int]) -> str:
    """The reason, or that there are too many to list each."""
    return reason if reason in counted or len(counted) < MOST_REASONS else OTHER


def said_of_others(left_out: Mapping[str, int]) -> str:
    """Why records are no seeds, as a sentence with a space behind it; nothing where all are."""
    if not left_out:
        return ""
    whys = ", ".join(f"{num:,} with {why}" for why, num in left_out.items())
    return f"Not shown: {whys}. "
