"""Decides which checkpoints to delete, and deletes them; called only after a newer one was published."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from sft.checkpoint.storage import CheckpointStorage

FindBest = Callable[[Collection[int]], int | None]
"""Which of these steps is the best; None if there is none."""


def no_best(steps: Collection[int]) -> int | None:
    """There is no best step."""
    return None


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: the newest `keep_last`, those after multiples of `keep_every_steps`, and the best of all."""

    keep_last: int
    keep_every_steps: int | None = None
    find_best: FindBest = no_best


def checkpoints_to_delete(published_steps: Sequence[int], retention: Retention) -> list[int]:
    """The steps whose checkpoints are not kept, the oldest first."""
    every, best = retention.keep_every_steps, retention.find_best(published_steps)
    older = sorted(published_steps)[: -retention.keep_last]
    return [step for step in older if step != best and (every is None or step % every)]


def delete_checkpoints(storage: CheckpointStorage, steps: Iterable[int], report: Callable[[str], None]) -> None:
    """Delete these checkpoints. One that cannot be deleted is reported: it only costs space."""
    for step in steps:
        try:
            storage.delete(step)
            storage.progress.tell()
        except OSError as error:
            report(f"the old checkpoint {storage.where(step)} could not be deleted: {error}")


def delete_stage_checkpoints(storage: CheckpointStorage, report: Callable[[str], None]) -> None:
    """Delete all checkpoints of a finished stage; the first rank calls this, after `stage.json` is written."""
    delete_checkpoints(storage, storage.steps(), report)
