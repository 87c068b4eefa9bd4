"""All drafts go through all filters, one after the other, and each is counted once: made = kept + dropped.

    Ended ──Filtering──▶ Ended, with `Dropped` in place of drafts that a filter does not keep

A draft is judged by the filters in their order until one drops it. What all keep, each is told, so that a copy is one
of something kept. Near copies are known only when all drafts are judged: until then outcomes lie in a file. A dear
filter judges behind that, in a pass of its own.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile, mkdtemp
from typing import IO

from sft.construction.filters.filter import Filter, Judge, Surroundings
from sft.construction.script import Dropped, Failed, Outcome, ScriptName
from sft.construction.work import Ended
from sft.draft import Draft, Provenance
from sft.errors import UserError

_PREFIX = ".filters-"
_PROVENANCE = tuple(Provenance.__dataclass_fields__)


class Filtering:
    """One pass over all drafts; where a filter is dear, behind that of the filters before it."""

    def __init__(self, filters: Sequence[Filter], around: Surroundings) -> None:
        """`filters` in the order in which drafts go through them.

        Raises:
            UserError: one cannot judge here.
        """
        dear = max((i for i, given in enumerate(filters) if given.is_dear), default=0)
        self._before = Filtering(filters[:dear], around) if dear else None
        self._judges: list[tuple[Filter, Judge]] = [(given, given.begin(around)) for given in filters[dear:]]
        self._scratch = around.scratch
        self.num_made = self.num_kept = 0
        """Drafts that came to the filters, and those that all kept."""
        self.dropped = Counter[tuple[str, str]]()
        """By filter and reason."""
        self.noted = Counter[str]()
        """The same, as a text, of those that are counted and kept."""

    def outcomes(self, ended: Iterable[Ended]) -> Iterator[Ended]:
        """The scripts in their order; `ended` is read once, to its end, before the first is given.

        Raises:
            AssertionError: a draft is not counted once.
            UserError: the disk is full.
        """
        if self._before is not None:
            ended = self._before.outcomes(ended)
        try:
            with TemporaryFile("w+", encoding="utf-8", dir=self._scratch) as file:
                for one in ended:
                    file.write(_line(one.name, self._judged(one.outcome)))
                late = self._finish()
                file.seek(0)
                yield from self._with_late(file, late)
        except OSError as error:
            raise UserError(
                f"construct.out: nothing can be written to {self._scratch.parent}: {error.strerror or error}. Make "
                f"room, and give the same command again: nothing that was paid is lost."
            ) from error
        if self._before is not None:
            self.num_made = self._before.num_made
            self.dropped += self._before.dropped
            self.noted += self._before.noted
        assert self.num_made == self.num_kept + self.dropped.total(), (self.num_made, self.num_kept, self.dropped)

    def _judged(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Draft):
            return outcome
        self.num_made += 1
        concerned = [(given, judge) for given, judge in self._judges if given.concerns(outcome)]
        for given, judge in concerned:
            reason = judge.judge(outcome)
            if scores := judge.scores(outcome):
                provenance = replace(outcome.provenance, scores={**outcome.provenance.scores, **scores})
                outcome = replace(outcome, provenance=provenance)
            if reason:
                self.dropped[given.name, reason] += 1
                return Dropped(outcome, given.name, reason)
        for given, judge in concerned:
            if what := judge.note(outcome):
                self.noted[f"{given.name}: {what}"] += 1
            judge.keep(outcome)
        return outcome

    def _finish(self) -> list[tuple[Filter, str, Iterator[bool]]]:
        ends = [(given, judge.finish()) for given, judge in self._judges]
        return [(given, late.reason, iter(late.dropped.tolist())) for given, late in ends if late is not None]

    def _with_late(self, file: IO[str], late: Sequence[tuple[Filter, str, Iterator[bool]]]) -> Iterator[Ended]:
        for line in file:
            one = _ended(line)
            draft = one.outcome
            if isinstance(draft, Draft):
                # Each judge was told of the drafts that it concerns, in this order.
                told = [(g.name, reason) for g, reason, is_dropped in late if g.concerns(draft) and next(is_dropped)]
                if told:
                    self.dropped[told[0]] += 1
                    one = one._replace(outcome=Dropped(draft, *told[0]))
                else:
                    self.num_kept += 1
            yield one


@contextmanager
def filtering(filters: Sequence[Filter], around: Surroundings) -> Iterator[Filtering]:
    """A pass whose scratch is a folder in `around.scratch`, which goes with it; so does what a killed one left."""
    for left in around.scratch.glob(f"{_PREFIX}*"):
        rmtree(left, ignore_errors=True)
    scratch = Path(mkdtemp(prefix=_PREFIX, dir=around.scratch))
    try:
        yield Filtering(filters, replace(around, scratch=scratch))
    finally:
        rmtree(scratch, ignore_errors=True)


def _line(name: ScriptName, outcome: Outcome) -> str:
    """Shorter to write than `Draft.as_json`, which hashes, and is called once the line is final."""
    if isinstance(outcome, Failed):
        return json.dumps([name, [outcome.reason, outcome.is_final]]) + "\n"
    draft = outcome.draft if isinstance(outcome, Dropped) else outcome
    why = [outcome.filter, outcome.reason] if isinstance(outcome, Dropped) else []
    of = [getattr(draft.provenance, field) for field in _PROVENANCE]
    return json.dumps([name, [], of, draft.messages, draft.task, draft.tools, draft.evidence, why]) + "\n"


def _ended(line: str) -> Ended:
    name, failed, *rest = json.loads(line)
    if failed:
        return Ended(ScriptName(*name), Failed(*failed))
    of, messages, task, tools, evidence, why = rest
    given = dict(zip(_PROVENANCE, of, strict=True))
    provenance = Provenance(**{**given, "seeds": tuple(given["seeds"]), "requests": tuple(given["requests"])})
    draft = Draft(tuple(messages), task, provenance, tuple(tools), evidence)
    return Ended(ScriptName(*name), Dropped(draft, *why) if why else draft)
