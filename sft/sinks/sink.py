"""What a sink is: the Protocol, and what it is fed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from sft.config_logging import LoggingConfig

End = Literal["finished", "stopped", "failed"]
"""How the training ended, or that it was not told: `failed`."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one moment of a run: of a step, or of the model after it."""

    stage: str
    step: int
    """So many steps were done then, through all stages."""
    time: float
    """Unix time in seconds."""
    values: Mapping[str, float]
    """By name, such as `train/loss`."""
    rolls_back: bool = False
    """A restart went back to here: what the sink has of this stage from this step on counts no more. Said only to a
    sink that replaces."""


class Purpose(NamedTuple):
    """What a sink is opened for."""

    name: str
    """The run's."""
    logging: LoggingConfig
    folder: Path
    """Where the sink may keep files of its own."""
    tensorboard: Path
    """Where event files go."""
    config: Mapping[str, Any]
    """The run's record of its config, free of secrets."""
    id: str
    """Of the run, the same at each start; empty at the first."""


class Sink(Protocol):
    """Two calls and an end are all that the services have in common. What a sink raises is tried again for a while; it
    need not be quick, and may hang."""

    replaces: bool
    """Whether it forgets, at a point that rolls back, what it has from there on. To one that cannot, a step that is
    trained again after a restart is not sent again: it feeds the same packs to the same model."""
    id: str
    """By which it finds this run again."""
    where: str
    """Where a person finds it."""

    def __init__(self, purpose: Purpose) -> None:
        """Begin the run, or go on with it; what is wrong is said by an exception of the package's own."""

    @staticmethod
    def destination(logging: LoggingConfig) -> str:
        """What tells two places apart, such as projects. In another one all of a run is new."""

    def add(self, points: Sequence[Point]) -> None:
        """Take the points in this order. Where it raises, they come again."""

    def close(self, end: End) -> None:
        """Send what was held back."""
