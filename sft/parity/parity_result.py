"""What a check of an exported folder found, for people and for programs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sft.atomic_files import write_json


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared."""

    name: str
    num_compared: int
    num_different: int
    first: str = ""
    """The first difference, in words."""
    notes: tuple[str, ...] = ()
    """What is no fault, but good to know."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Numbers, such as the largest difference and what is allowed."""


@dataclass(frozen=True, slots=True)
class ParityResult:
    """The result for one folder."""

    folder: str
    run: str
    stage: str
    step: int
    dtype: str
    """Of the exported parameters."""
    checks: tuple[Check, ...]
    causes: tuple[str, ...] = ()
    """In what the folder's files differ from what the run writes."""
    notes: tuple[str, ...] = ()
    not_done: str = ""
    """Why the check could not be made; then there may be no checks."""

    @property
    def is_equal(self) -> bool:
        """Whether the folder does the same as the trained model in all that was compared."""
        return not self.not_done and not any(check.num_different for check in self.checks)

    @property
    def in_words(self) -> str:
        """The result in a line."""
        if self.not_done:
            return f"not checked: {self.not_done}"
        wrong = [check.name for check in self.checks if check.num_different]
        if wrong:
            return f"not the same as the trained model in {', '.join(wrong)}"
        return f"the same as the trained model in {', '.join(check.name for check in self.checks)}"


def write_result(path: Path, result: ParityResult) -> None:
    """Keep the result in a file."""
    write_json(path, {"is_equal": result.is_equal, "in_words": result.in_words, **asdict(result)})
