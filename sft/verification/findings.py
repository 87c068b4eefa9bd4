"""What is wrong with a run, in sentences, by subject."""

from collections import Counter, defaultdict
from enum import StrEnum
from typing import NamedTuple

MAX_SHOWN = 20


class Kind(StrEnum):
    """What a finding is about, in the order of display."""

    FILES = "published files"
    LEDGER = "lines of the ledger"
    STEPS = "steps"
    PACKS = "packs"
    FED = "what was fed"


class KindFindings(NamedTuple):
    """The findings of one kind: how many there are, and the first few."""

    kind: Kind
    num: int
    first: tuple[str, ...]


class Findings:
    """Collects findings; keeps the first `MAX_SHOWN` of each kind."""

    def __init__(self) -> None:
        self._nums: Counter[Kind] = Counter()
        self._first: defaultdict[Kind, list[str]] = defaultdict(list)

    def add(self, kind: Kind, text: str) -> None:
        """Add a finding."""
        self._nums[kind] += 1
        if len(self._first[kind]) < MAX_SHOWN:
            self._first[kind].append(text)

    def results(self) -> tuple[KindFindings, ...]:
        """The kinds that have findings, in order."""
        return tuple(
            KindFindings(kind, self._nums[kind], tuple(self._first[kind])) for kind in Kind if self._nums[kind]
        )
