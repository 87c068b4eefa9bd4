"""What a filter is: settings that a config gives, and a judge that is made of them for one pass over all drafts.

Filter ──begin(Surroundings)──▶ Judge ──judge(Draft)──▶ why it is dropped, or None
                                  └─keep(Draft): all filters keep it
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from sft.construction.recipes.recipe import Seed
from sft.construction.script import Failed
from sft.draft import Draft

if TYPE_CHECKING:  # a config is read without the imports of the data
    from sft.data.duplicates import Hashes
    from sft.schema import BoolArray

OfHeldOut = Callable[[Draft], str | None]
"""What a draft has in common with what is measured on, in words; None for nothing."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is beside the drafts."""

    scratch: Path
    """An empty folder, for what does not belong into memory."""
    seeds: Sequence[tuple[str, Seed]] = ()
    """The records that the teacher was shown, each with its task."""
    trained_prompts: "Hashes | None" = None
    """The prompt hashes of all training data, rising."""
    of_held_out: Callable[[], OfHeldOut] | None = None
    """Reads what is held out; None where nothing is."""
    special_tokens: frozenset[str] = frozenset()
    """The texts of the control tokens of the tokenizer that will read what is kept."""
    losses: Callable[[Draft], Mapping[str, float] | Failed] | None = None
    """The losses of the model that is trained, `loss` and `ifd`, or why there are none; None where nobody measures."""
    grade: Callable[[Draft], float | Failed] | None = None
    """The grade that a judging model has given, or why there is none; None where nobody judges."""


class Late(NamedTuple):
    """Drafts that a judge drops once it has seen all."""

    reason: str
    dropped: "BoolArray"  # (num_kept,)
    """True for each of those that `keep` was called with, in their order, that is dropped."""


class Judge(ABC):
    """Judges drafts in the order of their scripts."""

    @abstractmethod
    def judge(self, draft: Draft) -> str | None:
        """Why it is dropped, in words that many drafts may share: they are counted by it. None keeps it."""

    def scores(self, draft: Draft) -> Mapping[str, float]:
        """What it has measured of the draft that it judged last, for the draft's provenance."""
        del draft
        return {}

    def note(self, draft: Draft) -> str | None:
        """What is counted of a draft that is kept all the same."""
        del draft
        return None

    def keep(self, draft: Draft) -> None:
        """Called with each draft that all filters keep, before the next one is judged."""
        del draft

    def finish(self) -> Late | None:
        """Called once, behind the last draft."""
        return None


class Filter(BaseModel, ABC):
    """The settings that all filters have: immutable, and unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    name: ClassVar[str]
    """In a config."""
    shorthand: ClassVar[str] = ""
    """The setting that a config may give alone, without its name."""
    example: ClassVar[str] = "true"
    """What a config may give."""
    is_dear: ClassVar[bool] = False
    """Whether it judges only what all filters before it keep for good: near copies among them are dropped first."""

    tasks: tuple[str, ...] = ()
    """Only drafts of these tasks are judged. Default: all."""

    @abstractmethod
    def begin(self, around: Surroundings) -> Judge:
        """A judge for one pass over all drafts.

        Raises:
            UserError: it cannot judge here.
        """

    def concerns(self, draft: Draft) -> bool:
        """Whether it is of a task that is judged."""
        return not self.tasks or draft.task in self.tasks


class Verifier(Filter):
    """A filter that looks at what a draft brings with it as evidence."""

    required: bool = False
    """Whether drafts are dropped that bring nothing to verify them by. Default: they are not judged."""
