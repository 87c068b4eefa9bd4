"""How a stage ended, in its `stage.json`: after how many steps, why then, and which of its models is the best."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sft.atomic_files import read_json, write_json
from sft.json_lines import from_json
from sft.run_folder import StageFolder


@dataclass(frozen=True, slots=True)
class BestStep:
    """The best evaluated step of a stage."""

    step: int
    value: float
    score: str
    """The metric that was compared."""
    task: str | None = None
    """The task whose metric it is; None: that of all tasks."""
    passed_over: tuple[int, ...] = ()
    """Steps that were better, but whose checkpoints were gone or damaged."""

    @property
    def what(self) -> str:
        """What was compared, in words."""
        return self.score if self.task is None else f"{self.score} of {self.task}"


@dataclass(frozen=True, slots=True)
class StageEnd:
    """The end of a stage."""

    stage: str
    num_steps: int
    attempt: int
    """The one that ended it."""
    num_steps_planned: int | None = None
    """Steps of its plan; None in a file of an earlier version, where they are `num_steps`."""
    best: BestStep | None = None
    """With `checkpoint.best`: of which step the best model is."""
    num_flat: int | None = None
    """If it ended before its budget: so many evaluations in a row were not better (`stop_when_flat`)."""

    @property
    def is_early(self) -> bool:
        """Whether it ended before its budget."""
        return self.num_flat is not None

    @property
    def has_best_model(self) -> bool:
        """Whether the best model is not that of the end, and so has a folder of its own."""
        return self.best is not None and self.best.step != self.num_steps


def write_stage_end(folder: StageFolder, end: StageEnd) -> None:
    """Mark the stage as finished."""
    write_json(folder.complete, asdict(end))


def read_stage_end(folder: StageFolder) -> StageEnd | None:
    """How the stage ended; None if it has not."""
    try:
        content: Mapping[str, Any] = read_json(folder.complete)
    except FileNotFoundError:
        return None
    best = content.get("best")
    if best is not None:
        best = from_json(BestStep, {**best, "passed_over": tuple(best.get("passed_over", ()))})
    return from_json(StageEnd, {"stage": folder.name, "attempt": 0, **content, "best": best})


def end_in_words(end: StageEnd) -> str:
    """Why the stage ended, if before its budget, and which model is the best."""
    assert end.best is not None
    best = f"its best {end.best.what}, {end.best.value:.4g}, "
    if end.best.passed_over:
        best = f"its best {end.best.what} of which there is a checkpoint, {end.best.value:.4g}, "
    best += f"is after step {end.best.step} (model-best)" if end.has_best_model else "is at its end (model)"
    if not end.is_early:
        return f"stage {end.stage}: {best}"
    return (
        f"stage {end.stage} ended after step {end.num_steps} of {end.num_steps_planned}: its last {end.num_flat} "
        f"evaluations were not better (checkpoint.best.stop_when_flat); {best}"
    )
