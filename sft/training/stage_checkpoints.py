"""A stage's checkpoints, as its config says: which one it resumes from, and how they are saved."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sft.checkpoint.open_storage import open_storage
from sft.checkpoint.resume import open_newest_good
from sft.checkpoint.retention import FindBest, no_best
from sft.checkpoint.saver import CheckpointSaver
from sft.checkpoint.storage import CheckpointStorage
from sft.checkpoint.tries import try_again
from sft.config import CheckpointConfig, FromConfig
from sft.engine.engine import Engine, ReadState
from sft.errors import UserError
from sft.ledger import LedgerWriter
from sft.ranks.agreement import any_rank, meet
from sft.ranks.ranks import Ranks
from sft.training.attempt import Attempt


def will_load(storage: CheckpointStorage, start: FromConfig | None, attempt: Attempt) -> bool:
    """Whether `load_state` will load one into the stage's engine; all ranks call it together.

    Args:
        storage: where the stage's checkpoints are.
        start: where the stage starts if it has no checkpoint, if from another run's.
        attempt: this start of the job.
    """
    if start is not None and start.checkpoints:
        return True
    ranks, report = attempt.ranks, partial(attempt.events.add, "checkpoint")
    return any_rank(ranks, ranks.world.is_first and bool(try_again(storage.steps, "listing the checkpoints", report)))


def load_state(
    engine: Engine, storage: CheckpointStorage, start: FromConfig | None, attempt: Attempt, about: Mapping[str, Any]
) -> tuple[int, int]:
    """`resume`; or `start_from`, if the stage has no checkpoint and starts from another run's.

    Raises:
        UserError: as these; or there was a checkpoint when the engine was made, so that it waits for one.
    """
    num_steps, num_skipped = resume(engine, storage, attempt, about)
    if num_steps == 0 and start is not None and start.checkpoints:
        start_from(engine, start, attempt)
    if engine.awaits_state:
        raise UserError(
            "the stage's checkpoints were there when its model was loaded, and are gone now. Bring them back, or start "
            "again to train the stage from its beginning.",
            is_everywhere=True,
        )
    return num_steps, num_skipped


def resume(engine: Engine, storage: CheckpointStorage, attempt: Attempt, about: Mapping[str, Any]) -> tuple[int, int]:
    """Load the newest good checkpoint into the engine; all ranks call it together.

    Args:
        engine: gets the state.
        storage: where the stage's checkpoints are.
        attempt: this start of the job.
        about: what the manifest of each of this stage's checkpoints says.

    Returns:
        The steps that it has done, and how many of them made no update; 0 and 0 if there is no checkpoint.

    Raises:
        UserError: there are checkpoints, but none is good; or they belong to another run.
    """
    attempt.heartbeat.enter("load checkpoint")
    report = partial(attempt.events.add, "checkpoint")
    reader = open_newest_good(storage, attempt.ranks, report, engine.local_spans())
    if reader is None:
        return 0, 0
    with reader:
        # All ranks read the same manifest.
        if other := [key for key, value in about.items() if reader.manifest.get(key) != value]:
            raise UserError(
                f"{storage.where(reader.step)} is the checkpoint of another run: its {' and '.join(other)} differ. "
                "Give each run its own checkpoint.dir.",
                is_everywhere=True,
            )
        step, num_updates = int(reader.manifest["step"]), int(reader.manifest["num_updates"])
        engine.load_local_state(_in_step(attempt.ranks, reader.read), num_updates)
    return step, step - num_updates


def start_from(engine: Engine, start: FromConfig, attempt: Attempt) -> None:
    """Load the parameters of another run's checkpoint into an engine that has not trained; all ranks call it together.

    The optimizer's state starts empty.

    Raises:
        UserError: on all ranks: the checkpoint is gone or damaged.
    """
    assert start.checkpoints is not None
    attempt.heartbeat.enter("load checkpoint")
    storage, report = open_storage(start.checkpoints), partial(attempt.events.add, "checkpoint")
    try:
        reader = open_newest_good(storage, attempt.ranks, report, engine.local_spans(), only=start.step)
    except UserError as error:
        raise UserError(f"from: the run cannot start from {start.run}. {error}", is_everywhere=True) from error
    assert reader is not None, "there is one, or it is damaged"

    def read(key: str, first: int, last: int) -> Tensor:
        is_parameter = key.endswith("/master")
        return reader.read(key, first, last) if is_parameter else torch.zeros(last - first)

    with reader:
        engine.load_local_state(_in_step(attempt.ranks, read), 0)


def load_step(engine: Engine, storage: CheckpointStorage, step: int, attempt: Attempt) -> bool:
    """Load the state after so many steps into an engine that has trained; all ranks call it together.

    Returns:
        False, on all ranks, if its checkpoint is gone or damaged: this is told.
    """
    attempt.heartbeat.enter("load checkpoint")
    report = partial(attempt.events.add, "checkpoint")
    try:
        reader = open_newest_good(storage, attempt.ranks, report, engine.local_spans(), only=step)
    except UserError:  # what is wrong was reported
        return False
    assert reader is not None, "there is one, or it is damaged"
    with reader:
        engine.load_local_state(_in_step(attempt.ranks, reader.read), int(reader.manifest["num_updates"]))
    return True


def open_saver(
    storage: CheckpointStorage,
    config: CheckpointConfig,
    attempt: Attempt,
    ledger: LedgerWriter | None,
    find_best: FindBest = no_best,
) -> CheckpointSaver:
    """The saver of this attempt's checkpoints. Before one is published, the first rank's ledger is synced."""
    return CheckpointSaver(
        storage,
        attempt.ranks,
        attempt.number,
        config,
        partial(attempt.events.add, "checkpoint"),
        ledger.sync if ledger else None,
        find_best=find_best,
    )


def _in_step(ranks: Ranks, read: ReadState) -> ReadState:
    """Keep the ranks together: they read the same tensors in the same order, so each waits for one tensor at most."""

    def read_in_step(key: str, start: int, stop: int) -> Tensor:
        values = read(key, start, stop)
        meet(ranks)
        ranks.progress.tell()
        return values

    return read_in_step
