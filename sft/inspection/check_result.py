"""The result of checking a store: for each invariant, how often it was checked, how often it is broken, and where."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from sft.schema import BoolArray, IntArray

MAX_SHOWN = 5


class Invariant(StrEnum):
    """What holds for every row of a store, in display order."""

    LAYOUT = "the rows follow each other and fill the store"
    VOCABULARY = "every id is in the vocabulary"
    LENGTH = "no row is longer than data.max_len_tokens"
    NAMES = "the store names every task and source"
    FIRST_TOKEN = "the first token is not learned"
    LEARNS = "every row has a learned token"
    COUNT = "the stored number of learned tokens equals the mask's"
    STOP = "what is learned of each answer ends in a control token"
    RECORD = "every row is made of its record"
    IDS = "the ids are those of the tokenizer's own chat template"
    TURNS = "one answer is learned for each assistant turn to be trained"
    BEGIN = "each answer is learned from the end of its generation prompt on"
    ANSWER = "the thought, words and calls of each answer are learned"
    CONTROL = "the model would stop at no token before the end"
    END = "each answer is learned through the whole end of its turn, and no further"
    ACCOUNT = "records read = kept + left out, each with its reason"


class Violation(NamedTuple):
    """One place where an invariant is broken; `row` is None if it does not concern a single row."""

    row: int | None
    what: str


class InvariantResult(NamedTuple):
    """The result for one invariant, with the first few of its violations."""

    invariant: Invariant
    num_checked: int
    num_violations: int
    first: tuple[Violation, ...]


class CheckResult(NamedTuple):
    """The result for a whole store."""

    num_rows: int
    num_tokens: int
    num_supervised_tokens: int
    num_answers: int
    num_stops: int
    invariants: tuple[InvariantResult, ...]

    @property
    def holds(self) -> bool:
        """Whether no invariant is broken."""
        return not any(result.num_violations for result in self.invariants)


@dataclass
class _Count:
    num_checked: int = 0
    num_violations: int = 0
    first: list[Violation] = field(default_factory=list)


class Findings:
    """Collects what a check finds."""

    def __init__(self) -> None:
        self._counts = {invariant: _Count() for invariant in Invariant}

    def add(self, invariant: Invariant, row: int | None, violation: str | None, num_checked: int = 1) -> None:
        """Count one check of a row (None: of no row in particular); `violation` says what is wrong, if anything is."""
        count = self._counts[invariant]
        count.num_checked += num_checked
        if violation is not None:
            count.num_violations += 1
            if len(count.first) < MAX_SHOWN:
                count.first.append(Violation(row, violation))

    def add_rows(self, invariant: Invariant, rows: IntArray, broken: BoolArray, say: Callable[[int], str]) -> None:
        """Count a check of each of `rows`; `say` makes the text for the i-th of them if it is broken."""
        count = self._counts[invariant]
        count.num_checked += len(rows)
        found = broken.nonzero()[0]
        count.num_violations += len(found)
        count.first += [Violation(int(rows[i]), say(int(i))) for i in found[: MAX_SHOWN - len(count.first)]]

    def results(self) -> tuple[InvariantResult, ...]:
        """All invariants, in order."""
        return tuple(
            InvariantResult(invariant, count.num_checked, count.num_violations, tuple(count.first))
            for invariant, count in self._counts.items()
        )
