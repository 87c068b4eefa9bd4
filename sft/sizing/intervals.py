"""What node failures cost a job with several checkpoint intervals: the config's, the best, and others.

Computed from sizes and the bandwidth of the storage: a checkpoint is written and read once, the model's weights are
read once. One value cannot be counted and is an allowance: how fast the state is copied from the workers' devices.
"""

from typing import NamedTuple

from sft.config import CheckpointConfig
from sft.sizing.goodput import FailureCosts, TimeShares, best_interval, share_time
from sft.sizing.nodes import Nodes
from sft.sizing.storage import Storage

_COPY_BYTES_PER_SECOND = 4e9
"""Allowance: the speed of copying one worker's part of the state into host memory."""
_FACTORS = (0.5, 2.0, 4.0)
"""Other intervals to show, in units of the best."""


class Interval(NamedTuple):
    """One checkpoint interval, and how the whole time is spent with it."""

    name: str
    """`config`, `best`, or `other`."""
    seconds: float
    """Training between two checkpoints."""
    steps: int | None
    """The same in steps; None if the time of a step is not known."""
    shares: TimeShares
    run_seconds: float | None
    """The time of the stage with all failures, saves and restarts; None if the time of its training is not known."""


def failure_costs(
    storage: Storage, checkpoint: CheckpointConfig, num_workers: int, nodes: Nodes
) -> FailureCosts | None:
    """What a failure and a save of the job cost; None if mean time or bandwidth is not known.

    Args:
        storage: the sizes of checkpoint and model.
        checkpoint: whether training waits for the writing.
        num_workers: the number of workers.
        nodes: what is known of the machines.
    """
    if nodes.node_mtbf_hours is None or nodes.storage_gb_per_second is None:
        return None
    bandwidth = nodes.storage_gb_per_second * 1e9
    between = nodes.node_mtbf_hours * 3600 / nodes.count(num_workers)
    restart = nodes.restart_seconds + (storage.checkpoint + storage.model) / bandwidth
    writing = storage.checkpoint / bandwidth
    if checkpoint.async_:
        return FailureCosts(between, restart, storage.checkpoint / num_workers / _COPY_BYTES_PER_SECOND, writing)
    return FailureCosts(between, restart, writing, 0.0)


def compare_intervals(
    costs: FailureCosts,
    checkpoint: CheckpointConfig,
    step_seconds: float | None,
    stage_seconds: float | None,
    epochs: float | None = None,
) -> tuple[Interval, ...]:
    """The config's interval if it is known, the best, and others around it.

    Args:
        costs: the costs of failures and saves of the job.
        checkpoint: the config's.
        step_seconds: the time of one step of the stage.
        stage_seconds: the time of all its steps.
        epochs: the stage's epochs; None if its budget counts something else.
    """
    best = _in_steps(best_interval(costs), step_seconds)
    given = _given(checkpoint, step_seconds, stage_seconds, epochs)
    found = [("config", given)] if given is not None else []
    found += [("best", best), *(("other", _in_steps(factor * best, step_seconds)) for factor in _FACTORS)]
    intervals = []
    for name, seconds in found:
        shares = share_time(seconds, costs)
        whole = stage_seconds / shares.training if stage_seconds is not None and shares.training else None
        steps = round(seconds / step_seconds) if step_seconds else None
        intervals.append(Interval(name, seconds, steps, shares, whole))
    return tuple(intervals)


def _given(
    checkpoint: CheckpointConfig, step_seconds: float | None, stage_seconds: float | None, epochs: float | None
) -> float | None:
    """The config's interval in seconds of training; None if the time of its steps or epochs is not known.

    A stage without saves in between has one interval: the whole stage.
    """
    known = [60 * checkpoint.every_minutes] if checkpoint.every_minutes is not None else []
    if checkpoint.every_steps is not None:
        if step_seconds is None:
            return None
        known.append(checkpoint.every_steps * step_seconds)
    if checkpoint.every_epochs is not None and epochs is not None:
        if stage_seconds is None:
            return None
        known.append(checkpoint.every_epochs * stage_seconds / epochs)
    known += [stage_seconds] if stage_seconds is not None else []
    return _in_steps(min(known), step_seconds) if known else None


def _in_steps(seconds: float, step_seconds: float | None) -> float:
    """The nearest interval of whole steps, at least one step."""
    return max(1, round(seconds / step_seconds)) * step_seconds if step_seconds else seconds
