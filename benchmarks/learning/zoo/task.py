"""A task: a way to make cases with their exact answers, and the wordings in which people ask for them.

A wording is a whole sentence, or a phrase ("the last word") in one of the frames that all tasks share ("Give …").
Wordings are seen (in training) or unseen (only in tests): a phrase that training never has, a sentence that it never
has, or a known phrase in a frame that no task has in training. No wording belongs to two tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Record = dict[str, Any]
"""The keys are instruction, input, output, task, cluster and wording; some tasks add options or references."""

FRAMES = ("Give {}.", "Tell me {}.", "Find {}.", "Write {}.", "Please give {}.", "I need {}.")
UNSEEN_FRAMES = ("Show me {}.", "Please write {}.")
CLAUSE_FRAMES = ("Say {}.", "Tell me {}.", "Find out {}.", "Write {}.", "Please tell me {}.", "I need to know {}.")
"""For phrases such as "how many words there are"."""
UNSEEN_CLAUSE_FRAMES = ("Show me {}.", "Please say {}.")
_CLAUSE_WORDS = {"if", "how", "which", "who", "what", "on", "of"}


class Case(NamedTuple):
    """One question of a task with its answer."""

    input: str
    """May be empty: then all that is asked about stands in the instruction."""
    output: str
    slots: Mapping[str, object] = {}
    """What stands for `{name}` in the wordings."""
    references: Sequence[str] = ()
    """All right answers, where there are several; `output` is one of them."""


@dataclass(frozen=True)
class Task:
    """`make` draws a case; the rest is how it is asked for."""

    name: str
    make: Callable[[np.random.Generator], Case]
    phrases: Sequence[str] = ()
    unseen_phrases: Sequence[str] = ()
    sentences: Sequence[str] = ()
    unseen_sentences: Sequence[str] = ()
    options: Sequence[str] = ()
    """For classification: all answers that there are."""
    num_cases: int | None = None
    """How many different cases there are, where they are few."""
    cluster: str = ""

    @property
    def wordings(self) -> list[str]:
        """What training asks with."""
        return [*self.sentences, *_framed(self.phrases, FRAMES, CLAUSE_FRAMES)]

    @property
    def unseen_wordings(self) -> list[str]:
        """What only tests ask with."""
        new_phrases = _framed(self.unseen_phrases, FRAMES, CLAUSE_FRAMES)
        new_frames = _framed(self.phrases, UNSEEN_FRAMES, UNSEEN_CLAUSE_FRAMES)
        return [*self.unseen_sentences, *new_phrases, *new_frames]

    @property
    def most_records(self) -> float:
        """How many different records can be drawn without looking for the last ones."""
        return np.inf if self.num_cases is None else self.num_cases * len(self.wordings) // 2

    def record(self, rng: np.random.Generator, *, unseen: bool = False) -> Record:
        """Draw a case and a wording for it."""
        case = self.make(rng)
        wordings = self.unseen_wordings if unseen else self.wordings
        wording = wordings[int(rng.integers(len(wordings)))]
        record: Record = {
            "instruction": _filled(wording, case.slots),
            "input": case.input,
            "output": case.output,
            "task": self.name,
            "cluster": self.cluster,
            "wording": wording,
        }
        if self.options:
            record["options"] = list(self.options)
        if case.references:
            record["references"] = list(case.references)
        return record


def task(**wordings: Any) -> Callable[[Callable[[np.random.Generator], Case]], Task]:
    """Make a task of the function that draws its cases; it gets the function's name."""

    def made(make: Callable[[np.random.Generator], Case]) -> Task:
        return Task(name=make.__name__, make=make, **wordings)

    return made


def _framed(phrases: Sequence[str], frames: Sequence[str], clause_frames: Sequence[str]) -> list[str]:
    return [
        frame.replace("{}", phrase)
        for phrase in phrases
        for frame in (clause_frames if phrase.split()[0] in _CLAUSE_WORDS else frames)
    ]


def _filled(wording: str, slots: Mapping[str, object]) -> str:
    for name, value in slots.items():
        wording = wording.replace("{" + name + "}", str(value))
    return wording
