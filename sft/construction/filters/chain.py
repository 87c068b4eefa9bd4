"""All drafts go through all filters, one after the other, and each is counted once: made = kept + dropped.

    Ended ──pass──▶ Ended ──pass──▶ …   with `Dropped` in place of drafts that a filter does not keep

A draft is judged by the filters in their order until one drops it. What all of a pass keep, each is told, so that a
copy is one of something kept. Near copies are known only when all drafts are judged: until then outcomes lie in a file.
Some filters begin a pass (`begins_pass`): they judge only what those before them keep for good.
"""

import pickle
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile, mkdtemp
from typing import IO

import numpy as np

from sft.construction.filters.filter import Filter, Surroundings
from sft.construction.filters.looking import Looking, Seen, looked_at
from sft.construction.folder import written_to
from sft.construction.script import Dropped, Failed
from sft.construction.work import Ended
from sft.draft import Draft
from sft.schema import BoolArray

_PREFIX = ".filters-"

Why = tuple[str, str]
"""The filter that drops a draft, and its reason."""


class Filtering:
    """All passes over all drafts."""

    def __init__(self, filters: Sequence[Filter], around: Surroundings, opened: ExitStack) -> None:
        """`filters` in the order in which drafts go through them; `opened` closes what all passes hold open.

        Raises:
            UserError: one cannot judge here.
        """
        begins = [i for i, given in enumerate(filters) if given.begins_pass]
        ends = [*begins, len(filters)]
        self._passes = [_Pass(filters[a:b], around, opened) for a, b in zip([0, *begins], ends, strict=True)]
        self.num_made = self.num_kept = 0
        """Drafts that came to the filters, and those that all kept."""
        self.dropped = Counter[Why]()
        """By filter and reason."""
        self.noted = Counter[str]()
        """The same, as a text, of drafts that all filters keep."""

    def outcomes(self, ended: Iterable[Ended]) -> Iterator[Ended]:
        """The scripts in their order; `ended` is read once, to its end, and all is judged before this returns.

        Raises:
            AssertionError: a draft is not counted once.
            UserError: the disk is full.
        """
        num = 0
        for one in self._passes:
            one.judge(ended, num)
            self.dropped += one.dropped
            ended, num = one, one.num_kept
        # A line is the same draft in each pass: who notes something of it does not know who drops it later.
        is_kept = ~np.logical_or.reduce([one.is_dropped for one in self._passes])
        for one in self._passes:
            self.noted += one.noted(is_kept)
        self.num_made, self.num_kept = self._passes[0].num_made, self._passes[-1].num_kept
        assert self.num_made == self.num_kept + self.dropped.total(), (self.num_made, self.num_kept, self.dropped)
        return iter(ended)


class _Pass:
    """Filters that judge in one go. When they have, it can be read as often as wanted."""

    def __init__(self, filters: Sequence[Filter], around: Surroundings, opened: ExitStack) -> None:
        """`opened` closes its file.

        Raises:
            UserError: a filter cannot judge here, or the disk is full.
        """
        self._judges = [(given, given.begin(around)) for given in filters]
        self._looking = Looking([(given, given.look(around), judge is None) for given, judge in self._judges])
        self._around = around
        self._file = opened.enter_context(_scratch_file(around.scratch))
        """What came in, but with scores."""
        self._whys: dict[tuple[str, str, bool], int] = {}
        """Each with whether it is final (see `Dropped`), and a number, from 1."""
        self._verdicts = array("I")
        """Of each line the number of its `Why`; 0: it is not dropped here."""
        self._told = array("H")
        """Of each line which judges were told that it is kept, as bits."""
        self._notes: dict[str, array[int]] = {}
        """What judges note of drafts that this pass has not dropped so far → their lines."""
        self.num_made = 0

    @property
    def is_dropped(self) -> BoolArray:
        """Of each line whether this pass drops it: (num_lines,)."""
        return np.asarray(np.frombuffer(self._verdicts, np.uint32) != 0)

    def noted(self, is_kept: BoolArray) -> Counter[str]:
        """What is noted of the lines that are kept in the end."""
        counts = {what: int(is_kept[np.frombuffer(lines, np.uint64)].sum()) for what, lines in self._notes.items()}
        return Counter({what: num for what, num in counts.items() if num})

    @property
    def dropped(self) -> Counter[Why]:
        """By filter and reason."""
        counts = np.bincount(np.frombuffer(self._verdicts, np.uint32), minlength=len(self._whys) + 1)
        dropped = Counter[Why]()
        for (given, reason, _), number in self._whys.items():
            dropped[given, reason] += int(counts[number])
        return dropped

    @property
    def num_kept(self) -> int:
        """Of the drafts that came in."""
        return self.num_made - self.dropped.total()

    def judge(self, ended: Iterable[Ended], num: int) -> None:
        """Judge all; where the first filter began the pass, they are read more often, and hold `num` drafts."""
        first = next((given for given, _ in self._judges if given.begins_pass), None)
        if first is not None:
            self._around.prepare(first, partial(_concerned, first, ended), num)
        for one, data, seen in looked_at(self._looking, ended):
            self._verdicts.append(0)
            self._told.append(0)
            if isinstance(one.outcome, Draft) and (scored := self._judged(one.outcome, seen)) is not one.outcome:
                data = pickle.dumps(one._replace(outcome=scored))
            with written_to(self._around.scratch):
                self._file.write(data)
        with written_to(self._around.scratch):
            self._file.flush()
        self._finish()

    def __iter__(self) -> Iterator[Ended]:
        self._file.seek(0)
        whys = [("", "", True), *self._whys]
        for verdict in self._verdicts:
            one: Ended = pickle.load(self._file)
            if verdict:
                assert isinstance(one.outcome, Draft)
                one = one._replace(outcome=Dropped(one.outcome, *whys[verdict]))
            yield one

    def _judged(self, draft: Draft, seen: Seen) -> Draft:
        """Judge what is the last one so far; returns it with its scores."""
        self.num_made += 1
        told = []
        for number, (given, judge) in enumerate(self._judges):
            if not given.concerns(draft):
                continue
            reason = seen[number] if judge is None else judge.judge(draft, seen[number])
            if judge is not None:
                told.append((number, judge))
                if scores := judge.scores(draft):
                    provenance = replace(draft.provenance, scores={**draft.provenance.scores, **scores})
                    draft = replace(draft, provenance=provenance)
            if reason:
                self._verdicts[-1] = self._number_of(given.name, reason)
                return draft
        for number, judge in told:
            if what := judge.note(seen[number]):
                lines = self._notes.setdefault(f"{self._judges[number][0].name}: {what}", array("Q"))
                lines.append(len(self._verdicts) - 1)
            judge.keep(draft, seen[number])
            self._told[-1] |= 1 << number
        return draft

    def _finish(self) -> None:
        """What judges drop once they have seen all; the first one's reason counts."""
        told, verdicts = np.frombuffer(self._told, np.uint16), np.frombuffer(self._verdicts, np.uint32)
        for number, (given, judge) in enumerate(self._judges):
            if judge is not None and (late := judge.finish()) is not None:
                # The judge was told of these lines, in this order.
                lines = np.flatnonzero(told & (1 << number))[late.dropped]
                verdicts[lines[verdicts[lines] == 0]] = self._number_of(given.name, late.reason)

    def _number_of(self, name: str, why: str | Failed) -> int:
        reason, is_final = (why.reason, why.is_final) if isinstance(why, Failed) else (why, True)
        return self._whys.setdefault((name, reason, is_final), len(self._whys) + 1)


def _concerned(given: Filter, ended: Iterable[Ended]) -> Iterator[Draft]:
    for one in ended:
        if isinstance(one.outcome, Draft) and given.concerns(one.outcome):
            yield one.outcome


@contextmanager
def filtering(filters: Sequence[Filter], around: Surroundings) -> Iterator[Filtering]:
    """The passes. Their scratch is a folder in `around.scratch`. It goes with them, as does what a killed one left.

    Raises:
        UserError: a filter cannot judge here, or the disk is full.
    """
    for left in around.scratch.glob(f"{_PREFIX}*"):
        rmtree(left, ignore_errors=True)
    with written_to(around.scratch):
        scratch = Path(mkdtemp(prefix=_PREFIX, dir=around.scratch))
    try:
        with ExitStack() as opened:
            yield Filtering(filters, replace(around, scratch=scratch), opened)
    finally:
        rmtree(scratch, ignore_errors=True)


@contextmanager
def _scratch_file(folder: Path) -> Iterator[IO[bytes]]:
    """It has no name, and is gone with this process."""
    with ExitStack() as opened:
        with written_to(folder):
            file = opened.enter_context(TemporaryFile(dir=folder))
        yield file
        with suppress(OSError):  # what the disk has not taken is said already
            file.close()
