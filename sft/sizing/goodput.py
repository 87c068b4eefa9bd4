"""Goodput: the share of the time whose training is kept if nodes fail, by the interval between checkpoints.

Failures come at random, at a constant rate (a Poisson process), in training, in saves and in restarts. After a failure
the run restarts, and goes on at the newest complete checkpoint:

    train ──interval──▶ copy (stall) ──▶ train on, while the checkpoint is written ──▶ complete: the training is safe
      ▲                                     failure ──▶ restart, repeated if it fails itself
      └── from the newest complete checkpoint ◀───────────┘

With `writing` 0 (training waits for the whole save), it is the cost function of Daly 2006. A failed node is replaced at
once, or within `restart`: there is no wait for a repair.
"""

import math
from typing import NamedTuple


class FailureCosts(NamedTuple):
    """What failures and saves cost a run. All in seconds."""

    between_failures: float
    """Of the job: mean time from one failure of any node to the next."""
    restart: float
    """From a failure until training goes on, without the steps that are trained again."""
    stall: float
    """How long training waits for each checkpoint."""
    writing: float
    """From then until the checkpoint is complete, while training goes on. An earlier next save waits for it."""


class TimeShares(NamedTuple):
    """How the whole time is spent; the shares add up to 1."""

    training: float
    """Training that is kept: the goodput."""
    saving: float
    """Waiting for saves that are kept."""
    again: float
    """Training, and saves, that a failure undid."""
    restarting: float


def share_time(interval: float, costs: FailureCosts) -> TimeShares:
    """How time is spent in the long run with a checkpoint every `interval` seconds of training.

    After a restart, the first checkpoint is complete after first = interval + stall + writing without a failure, and
    each next one after a further period. So between two failures, on average exp(-first / M) / (1 - exp(-period / M))
    intervals are kept, where M is the mean time between failures. A failure and its restarts take, on average, M ·
    exp(restart / M) in all: the time until it comes, M, and restarts that fail themselves.
    """
    mean = costs.between_failures
    period = max(interval, costs.writing) + costs.stall
    first = interval + costs.stall + costs.writing
    is_up = math.exp(-costs.restart / mean)
    # Per second of the whole time: starts that keep an interval, and intervals that are kept.
    starts = is_up * math.exp(-first / mean) / mean
    kept = starts / -math.expm1(-period / mean)
    # The first interval of a start has no writing to wait for.
    training, saving = kept * interval, kept * costs.stall + (kept - starts) * (period - costs.stall - interval)
    return TimeShares(training, saving, max(0.0, is_up - training - saving), 1 - is_up)


def best_interval(costs: FailureCosts) -> float:
    """The seconds of training between checkpoints that keep the most training.

    Young 1974 ("A first order approximation to the optimum checkpoint interval", Communications of the ACM 17, 9) has
    sqrt(2 · stall · mean time between failures); Daly 2006 ("A higher order estimate of the optimum checkpoint interval
    for restart dumps", Future Generation Computer Systems 22, 3) the next terms, which matter if a save is not short.
    Writing a checkpoint during training makes the way back longer, but changes the best interval in one way only: it is
    at least as long as the writing, which would otherwise delay the next save.
    """
    mean, stall = costs.between_failures, costs.stall
    if stall >= 2 * mean:
        return max(mean, costs.writing)
    part = stall / (2 * mean)
    daly = math.sqrt(2 * stall * mean) * (1 + math.sqrt(part) / 3 + part / 9) - stall
    return max(daly, costs.writing)
