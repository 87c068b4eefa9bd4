"""What a number about a model means, and how to show it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number means, and how to show it."""

    title: str
    """One or two words."""
    text: str
    """The same, with what it is a mean over."""
    better: Literal["lower", "higher", "neither"]
    """`neither` for what describes answers and does not grade them, such as their length."""
    over: str
    """The count that it is a mean over, by its name among a task's numbers."""
    is_share: bool = False
    """Whether it lies between 0 and 1: shown as a percentage, and its changes in percentage points."""
    note: str = ""
    """A sentence with what else a reader should know."""
