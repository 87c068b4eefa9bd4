"""What a part of the benchmark is: a name, a limit of time, and a function that yields rows."""

import time
from collections.abc import Callable, Iterator, Mapping
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
        return cls(content["what"], content["values"], goals, content["error"])


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


Run = Callable[[Setting], Iterator[Row]]


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


def each(setting: Setting, cases: Mapping[str, Callable[[], Iterator[Row]]], seconds: float) -> Iterator[Row]:
    """The rows of all cases; one that fails is a row, and the others go on.

    Args:
        setting: gives the time.
        cases: by name, in order.
        seconds: what a case takes; with less left, it is not begun.
    """
    left_out = []
    for name, case in cases.items():
        if setting.seconds_left < seconds:
            left_out.append(name)
            continue
        try:
            yield from case()
        except Exception as error:
            yield failed(name, error)
    if left_out:
        yield Row("not begun, for want of time", {"cases": ", ".join(left_out)})


def failed(what: str, error: BaseException) -> Row:
    """An error as a row: its last line of ours, and its words."""
    at = error.__traceback__
    place = ""
    while at is not None:
        name = at.tb_frame.f_code.co_filename
        if "/sft/" in name or "/benchmarks/" in name:
            place = f" ({Path(name).name}:{at.tb_lineno})"
        at = at.tb_next
    lines = str(error).strip().splitlines() or [""]
    return Row(what, error=f"{type(error).__name__}: {lines[0][:300]}{place}")
