"""What a part of the benchmark is, and its rows. The process that runs all parts needs no more, and no torch."""

import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

Value = float | str | None


@dataclass(frozen=True)
class Goal:
    """What a row has to reach: `value` at least, or at most, `bound`."""

    name: str
    value: float
    bound: float
    is_least: bool = False
    """Whether the bound is the least that is good, rather than the most."""

    @property
    def is_met(self) -> bool:
        """A value that is no number meets nothing."""
        return self.value >= self.bound if self.is_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.is_least else "≤"
        return f"{self.name} {sign} {self.bound:g}: {'met' if self.is_met else f'MISSED ({self.value:.4g})'}"


def at_most(name: str, value: float, bound: float) -> Goal:
    return Goal(name, value, bound)


def at_least(name: str, value: float, bound: float) -> Goal:
    return Goal(name, value, bound, is_least=True)


@dataclass(frozen=True)
class Row:
    """One line of a part: what was measured, its values by name (with their units), and goals."""

    what: str
    values: Mapping[str, Value] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    error: str | None = None
    trace: str | None = None
    """The whole traceback of an error, for the JSON."""

    @property
    def text(self) -> str:
        """Values and goals, for people."""
        values = ", ".join(f"{name} {shown(value)}" for name, value in self.values.items())
        return "; ".join(filter(None, (values, *map(str, self.goals), self.error and f"FAILED: {self.error}")))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Self:
        goals = tuple(Goal(**goal) for goal in content["goals"])
        return cls(**{**content, "goals": goals})


def shown(value: Value) -> str:
    if not isinstance(value, float):
        return "–" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Setting:
    """Where a part runs."""

    device: str
    """`cuda`, or `cpu`."""
    small: bool
    """Models of two layers and a handful of tokens, to see that every line runs."""
    folder: Path
    """For models and checkpoints; in memory if there is enough."""
    deadline: float
    """In `time.monotonic`: what a part has not begun by then, it leaves out."""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


@dataclass(frozen=True)
class Part:
    """One part."""

    number: int
    name: str
    seconds: float
    """Its limit."""
    module: str
    """In this package; has `run`."""
    has_engine: bool = True
    """Whether it trains, and so needs DeepSpeed."""


def failed(what: str, error: BaseException) -> Row:
    """An error as a row: its words, and the last line of ours."""
    at = error.__traceback__
    place = ""
    while at is not None:
        name = at.tb_frame.f_code.co_filename
        if "/sft/" in name or "/benchmarks/" in name:
            place = f" ({Path(name).name}:{at.tb_lineno})"
        at = at.tb_next
    lines = str(error).strip().splitlines() or [""]
    trace = "".join(traceback.format_exception(error))[-4000:]
    return Row(what, error=f"{type(error).__name__}: {lines[0][:300]}{place}", trace=trace)
