"""The Protocol of a sink, and what it gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from sft.config_logging import LoggingConfig

End = Literal["finished", "stopped", "failed"]
"""How the training ended; `failed` also if that is not recorded."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one moment of a run: in a step, or of the model after it."""

    stage: str
    step: int
    """How many steps were done then, over all stages."""
    time: float
    """Unix time in seconds."""
    values: Mapping[str, float]
    """By name, such as `train/loss`."""
    rolls_back: bool = False
    """A restart went back to here: what the sink has of this stage from this step on is no longer valid. Set only for a
    sink that replaces."""


class Purpose(NamedTuple):
    """What a sink is opened for."""

    name: str
    """The run's name."""
    logging: LoggingConfig
    folder: Path
    """Where the sink may keep its own files."""
    tensorboard: Path
    """Where event files go."""
    config: Mapping[str, Any]
    """The run's record of its config, free of secrets."""
    id: str
    """The run's id in the sink, the same at each start; empty at the first."""


class Sink(Protocol):
    """Two calls and an end are all that the services have in common. If a sink raises, the call is repeated for a
    while; it may be slow, and may hang."""

    replaces: bool
    """Whether it forgets, at a point that rolls back, what it has from there on. If it cannot, a step that is trained
    again after a restart is not sent again: it feeds the same packs to the same model."""
    id: str
    """By which the sink finds this run again."""
    where: str
    """Where people find the run."""

    def __init__(self, purpose: Purpose) -> None:
        """Begin or continue the run; problems raise the package's own exceptions."""

    @staticmethod
    def destination(logging: LoggingConfig) -> str:
        """Identifies the place, such as a project. In another place, everything of a run is new."""

    def add(self, points: Sequence[Point]) -> None:
        """Take the points in this order. If it raises, they come again."""

    def close(self, end: End) -> None:
        """Send what was held back."""
