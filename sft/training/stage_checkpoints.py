"""A stage's checkpoints, as its config says: which one it resumes from, and how they are saved."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sft.checkpoint.open_storage import open_storage
from sft.checkpoint.resume import open_newest_good
from sft.checkpoint.saver import CheckpointSaver
from sft.checkpoint.storage import CheckpointStorage
from sft.config import CheckpointConfig, FromConfig
from sft.engine.engine import Engine, ReadState
from sft.errors import UserError
from sft.ledger import LedgerWriter
from sft.ranks.agreement import meet
from sft.ranks.ranks import Ranks
from sft.training.attempt import Attempt


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


def open_saver(
    storage: CheckpointStorage, config: CheckpointConfig, attempt: Attempt, ledger: LedgerWriter | None
) -> CheckpointSaver:
    """The saver of this attempt's checkpoints. Before one is published, the first rank's ledger is synced."""
    return CheckpointSaver(
        storage,
        attempt.ranks,
        attempt.number,
        config,
        partial(attempt.events.add, "checkpoint"),
        ledger.sync if ledger else None,
    )


def _in_step(ranks: Ranks, read: ReadState) -> ReadState:
    """Keep the ranks together: they read the same tensors in the same order, so each waits for one tensor at most."""

    def read_in_step(key: str, start: int, stop: int) -> Tensor:
        values = read(key, start, stop)
        meet(ranks)
        ranks.progress.tell()
        return values

    return read_in_step
