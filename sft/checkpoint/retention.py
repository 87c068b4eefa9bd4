"""Decides which checkpoints to delete, and deletes them; called only after a newer one was published."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sft.checkpoint.storage import CheckpointStorage


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: the newest `keep_last`, and those after multiples of `keep_every_steps`."""

    keep_last: int
    keep_every_steps: int | None = None


def checkpoints_to_delete(published_steps: Sequence[int], retention: Retention) -> list[int]:
    """The steps whose checkpoints are not kept, the oldest first."""
    every = retention.keep_every_steps
    older = sorted(published_steps)[: -retention.keep_last]
    return [step for step in older if every is None or step % every]


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
