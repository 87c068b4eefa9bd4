"""A script is one try at one record: a generator that asks the teacher, step by step, and ends with a draft.

    def script():
        reply = yield ChatRequest(…)      what the teacher says, or NoReply
        found = yield Elsewhere(…)        what takes long and asks nobody: requests of others go on meanwhile
        …
        return Draft(…)                   or Failed("why there is none")

It draws at random from its own name and the run's seed alone. So it asks the same again after a kill.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sft.draft import Draft
from sft.endpoint.chat import ChatRequest


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a try made no record."""

    reason: str
    """Words that many tries may share: they are counted by it."""
    is_final: bool = True
    """Whether the same command would end the same; False: it has not been asked yet, or has no answer yet."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A draft that is not kept."""

    draft: Draft
    filter: str
    reason: str
    is_final: bool = True
    """As in `Failed`; False: what the filter judges by, such as a grade, is not there yet."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a script waits for that is no answer, such as running code; one such thing runs at a time."""

    run: Callable[[], Any]
    """Gives the same each time, and never None."""


Outcome = Draft | Dropped | Failed
Script = Generator[ChatRequest | Elsewhere, Any, Draft | Failed]


class ScriptName(NamedTuple):
    """Identifies a script."""

    recipe: str
    task: str
    number: int
    """From 0, in its recipe and task."""

    def __str__(self) -> str:
        """For the log and for people."""
        return f"{self.recipe}/{self.task}/{self.number}"
