"""Looks for tests of looking, in a module that imports little: each process that looks at drafts imports it anew."""

import os
import signal
import sys
from collections.abc import Callable, Sequence

import psutil

from sft.construction.filters import looking
from sft.construction.filters.draft_parts import DraftParts
from sft.construction.filters.filter import Filter, Look
from sft.construction.filters.looking import Looking, looked_at
from sft.construction.script import Failed, ScriptName
from sft.construction.work import Ended
from sft.draft import Draft, Provenance


class OfEach:
    """What drafts have in common with what is held out, from what one has. Other processes may be sent it."""

    def __init__(self, of_one: Callable[[Draft], str | None]) -> None:
        self.of_one = of_one

    def __call__(self, drafts: Sequence[DraftParts]) -> list[str | None]:
        return [self.of_one(parts.draft) for parts in drafts]


def of_sea(one: Draft) -> str | None:
    """Of what is held out there is one word."""
    return "it has the sea" if "sea" in str(one.messages) else None


class Length(Look):
    """Sees how long a prompt is."""

    def see(self, parts: DraftParts) -> int:
        return len(parts.draft.messages[0]["content"])


class Hurt(Look):
    """Ends at a word."""

    def see(self, parts: DraftParts) -> None:
        prompt = parts.draft.messages[0]["content"]
        if prompt == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        assert prompt != "raise", "it is raised here"


class Given(Filter):
    name = "given"


def all_of(drafts: Sequence[Draft]) -> list[Ended]:
    """With a script in between that made nothing."""
    outcomes = [one for made in drafts for one in (made, Failed("no answer"))]
    return [Ended(ScriptName("few_shot", "words", i), one) for i, one in enumerate(outcomes)]


def look_for_ever() -> None:
    """Print the ids of the processes that look, again and again."""
    looking._FEW, looking._BATCH, looking._MOST_PROCESSES = 0, 1, 2
    messages = ({"role": "user", "content": "go on"}, {"role": "assistant", "content": "yes"})
    drafted = [Draft(messages, "words", Provenance("few_shot", "tiny", "none"))]
    for _ in looked_at(Looking([(Given(), Hurt(), True)]), (one for _ in range(10**9) for one in all_of(drafted))):
        sys.stdout.write(" ".join(str(child.pid) for child in psutil.Process().children()) + "\n")
        sys.stdout.flush()
