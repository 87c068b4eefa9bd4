"""What a filter is: settings that a config gives, and what is made of them for one pass over all drafts.

Filter ──look(Surroundings)──▶ Look ──see(draft)──▶ why it is dropped, or None: by itself, so in any process
Filter ──begin(Surroundings)──▶ Judge ──judge(Draft, what its look saw)──▶ the same, in the order of the scripts
                                  └─keep(Draft, …): all filters keep it
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from sft.construction.filters.draft_parts import DraftParts
from sft.construction.recipes.recipe import Seed
from sft.construction.script import Failed
from sft.draft import Draft

if TYPE_CHECKING:  # a config is read without the imports of the data
    from sft.data.duplicates import Hashes
    from sft.schema import BoolArray

OfHeldOut = Callable[[Sequence[DraftParts]], Sequence[str | None]]
"""What each of some drafts has in common with what is measured on, in words; None for nothing. It can be pickled."""


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
    losses: Sequence[Callable[[Draft], Mapping[str, float] | Failed]] = ()
    """The losses `loss` and `ifd` of a draft, or why there are none: for the model that is trained, then for the one
    that `difficulty.after` names, if it does. Empty where nobody measures."""
    grade: Callable[[Draft], float | Failed] | None = None
    """The grade that a judging model has given, or why there is none; None where nobody judges."""
    prepare: "Callable[[Filter, Callable[[], Iterator[Draft]], int], None]" = lambda judging, drafts, num: None
    """Called before the filter that begins a pass judges, with what reads all that come to it, `num` at most."""


class Late(NamedTuple):
    """Drafts that a judge drops once it has seen all."""

    reason: str
    dropped: "BoolArray"  # (num_kept,)
    """True for each of those that `keep` was called with, in their order, that is dropped."""


class Look(ABC):
    """Looks at drafts, at each by itself: any process may do it, at many together. It can be pickled."""

    @abstractmethod
    def see(self, parts: DraftParts) -> Any:
        """What is seen in a draft: where the filter has no judge, why it is dropped, or None."""

    def see_all(self, drafts: Sequence[DraftParts]) -> Sequence[Any]:
        """What is seen in each."""
        return [self.see(parts) for parts in drafts]


class Judge(ABC):
    """Judges drafts in the order of their scripts. `seen` is what the filter's look saw, None if it has none."""

    @abstractmethod
    def judge(self, draft: Draft, seen: Any) -> str | Failed | None:
        """Why it is dropped, in words that many drafts may share: they are counted by it. None keeps it.

        `Failed`: what it is judged by is not there. Where that is not final, the same command goes on with it.
        """

    def scores(self, draft: Draft) -> Mapping[str, float]:
        """What it has measured of the draft that it judged last, for the draft's provenance."""
        del draft
        return {}

    def note(self, seen: Any) -> str | None:
        """What is counted of a draft, if it is kept in the end."""
        del seen
        return None

    def keep(self, draft: Draft, seen: Any) -> None:
        """Called with each draft that all filters keep, before the next one is judged."""
        del draft, seen

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
    word: ClassVar[str] = ""
    """What a config may give in place of `true`."""
    example: ClassVar[str] = "true"
    """What a config may give."""
    begins_pass: ClassVar[bool] = False
    """Whether it judges only what all filters before it keep for good: near copies among them are dropped first. So a
    dear one is asked for no more than it must be, and a share is one of what the others keep."""

    tasks: tuple[str, ...] = ()
    """Only drafts of these tasks are judged. Default: all."""

    def look(self, around: Surroundings) -> Look | None:
        """What looks at each draft by itself; None if nothing has to.

        Raises:
            UserError: it cannot look here.
        """
        del around
        return None

    def begin(self, around: Surroundings) -> Judge | None:
        """A judge for one pass over all drafts; None: what is seen of a draft decides.

        Raises:
            UserError: it cannot judge here.
        """
        del around
        return None

    def concerns(self, draft: Draft) -> bool:
        """Whether it is of a task that is judged."""
        return not self.tasks or draft.task in self.tasks


class Verifier(Filter):
    """A filter that looks at what a draft brings with it as evidence."""

    required: bool = False
    """Whether drafts are dropped that bring nothing to verify them by. Default: they are not judged."""
