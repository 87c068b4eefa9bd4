"""Where the prepared data and the plans of a run are: what its ranks are told, and what they open."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Workload:
    """Where the prepared data and the plans are.

    A stage that was extended has several plans. All ranks open the one named here, whatever their node sees already.
    """

    store: Path
    heldout: Path | None
    plans: tuple[Path, ...]
    questions: Path | None = None
    """The held-out prompts that the model answers; None where it answers none."""
    unseen_tasks: tuple[str, ...] = ()
    """The tasks that no stage trains on."""

    def as_json(self) -> dict[str, Any]:
        """The form in which it is sent to the workers."""
        heldout = str(self.heldout) if self.heldout else None
        questions = str(self.questions) if self.questions else None
        plans = list(map(str, self.plans))
        return {
            "store": str(self.store),
            "heldout": heldout,
            "plans": plans,
            "questions": questions,
            "unseen_tasks": [*self.unseen_tasks],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Workload":
        """The inverse of `as_json`."""
        heldout, questions = (Path(path) if path else None for path in (content["heldout"], content["questions"]))
        plans = tuple(map(Path, content["plans"]))
        return cls(Path(content["store"]), heldout, plans, questions, tuple(content["unseen_tasks"]))
