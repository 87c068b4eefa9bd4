"""Which records are approved, by the rule that was stated before.

    each     one reviewer has accepted or edited the record, none rejects it; a flagged one needs somebody else
    sample   a random sample of the records was reviewed, and the upper end of the error rate of all (95 %) lies below
             the stated bound: then all are approved that nobody rejects or flags

A record that a reviewer had to edit is an error of the sample: the records that nobody sees are not edited. The sample
is the beginning of the random order (`sft.approval.record_order`) up to the first record without a verdict, so that
nobody chooses what is in it. Records that are reviewed in another order do not count in it. People look after every
record, so the upper end is one that is true at every look (`sft.scoring.anytime`), and never below that of Wilson's
interval (1927), which is true at one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import NamedTuple

from sft.approval.decisions import Decisions
from sft.approval.opinions import Opinion
from sft.printable import counted
from sft.scoring.agreement import Agreement, grade_agreement
from sft.scoring.anytime import anytime_upper
from sft.scoring.statistics import wilson

OpinionOf = Callable[[str], Opinion]
"""A record's id → what all say of it."""
_Wrong = Callable[[int], float]
_KINDS = {"accept": 0, "edit": 1, "reject": 2}


@dataclass(frozen=True, slots=True)
class SampleResult:
    """What a reviewed random sample says of all records."""

    num_records: int
    num_reviewed: int
    """Records of the sample with a verdict."""
    num_wrong: int
    """Those that were rejected or edited."""
    bound: float
    upper: float
    """The upper end of the error rate, as `upper_end` gives it; 1 before the first verdict."""

    @property
    def suffices(self) -> bool:
        """Whether the other records are approved, too."""
        return self.upper < self.bound or self.num_reviewed == self.num_records

    @property
    def num_more(self) -> int:
        """How many more have to be reviewed at least: if none of them is wrong."""
        return self._more(lambda num_more: float(self.num_wrong))

    @property
    def num_more_at_rate(self) -> int:
        """How many more if as many of them are wrong as until now: at most all that are left."""
        rate = self.num_wrong / self.num_reviewed if self.num_reviewed else 0.0
        return self._more(lambda num_more: rate * (self.num_reviewed + num_more))

    def __str__(self) -> str:
        """For the page and the terminal."""
        if self.num_reviewed == self.num_records:
            seen = f"All {self.num_records:,} are reviewed, {self.num_wrong:,} of them wrong. "
            return seen + "Those are approved that nobody rejects or flags."
        so_far = (
            f"{self.num_reviewed:,} reviewed, {self.num_wrong:,} of them wrong: the upper end for all is "
            f"{self.upper:.1%} (95%, however often one looks), the stated bound {self.bound:.1%}. "
        )
        if self.suffices:
            return so_far + "That suffices: all are approved that nobody rejects or flags."
        at_rate = f", {self.num_more_at_rate:,} if as many are as until now" if self.num_wrong else ""
        verb = "is" if self.num_more == 1 else "are"
        return so_far + f"{self.num_more:,} more {verb} needed if none of them is wrong{at_rate}."

    def _more(self, num_wrong: _Wrong) -> int:
        """The least number that suffices, or all: the interval's end falls as the number grows."""
        low, high = -1, self.num_records - self.num_reviewed
        if self.suffices:
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            num = self.num_reviewed + middle
            if num and upper_end(num_wrong(middle), num, self.num_records) < self.bound:
                high = middle
            else:
                low = middle
        return high


def upper_end(num_wrong: float, num_reviewed: int, num_records: int) -> float:
    """The upper end of the error rate of all records, after at least one of them was reviewed."""
    return max(wilson(num_wrong, num_reviewed)[1], anytime_upper(num_wrong, num_reviewed, num_records))


def sample_result(order: Sequence[str], opinion_of: OpinionOf, bound: float) -> SampleResult:
    """What the sample says.

    Args:
        order: the ids of all records, in the random order.
        opinion_of: such as `Opinions.of`.
        bound: the error rate that is not reached, above 0 and at most 1.
    """
    states = (opinion_of(record).state for record in order)
    reviewed = [*takewhile(lambda state: state not in ("open", "flagged"), states)]
    num_wrong = sum(state != "accepted" for state in reviewed)
    upper = upper_end(num_wrong, len(reviewed), len(order)) if reviewed else 1.0
    return SampleResult(len(order), len(reviewed), num_wrong, bound, upper)


class PairAgreement(NamedTuple):
    """Of two reviewers, on the records that both have decided."""

    first: str
    second: str
    agreement: Agreement

    def __str__(self) -> str:
        """For the page and the terminal."""
        kappa, num = self.agreement.coefficient, counted(self.agreement.num_marks, "record")
        if math.isnan(kappa.value):
            return f"{self.first} and {self.second} both decided on {num}, always the same: kappa is not defined."
        interval = f"{kappa.value:.2f} [{kappa.low:.2f}, {kappa.high:.2f}]"
        return f"{self.first} and {self.second} both decided on {num}: kappa {interval}."


def reviewer_agreement(decisions: Decisions, is_for_two: Callable[[str], bool] | None = None) -> list[PairAgreement]:
    """Cohen's kappa of each two reviewers: whether they accept, edit or reject the same version when they first see it.

    Args:
        decisions: of all reviewers.
        is_for_two: whether the page shows the record with this id to a second reviewer without the words of the first;
            only these two count then. None: all count who have decided on a record, such as in another tool.
    """
    kinds: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for record in sorted(decisions.records):
        by = [*decisions.first(record).items()]
        if is_for_two is not None:
            by = by[:2] if is_for_two(record) else []
        decided = sorted((who, _KINDS[verdict]) for who, verdict in by if verdict in _KINDS)
        for (first, a), (second, b) in combinations(decided, 2):
            kinds.setdefault((first, second), []).append((a, b))
    return [
        PairAgreement(*pair, grade_agreement([a for a, _ in both], [b for _, b in both], weighted=False))
        for pair, both in sorted(kinds.items())
    ]
