"""The part of the time that trains a run for good, where nodes fail: by the interval between checkpoints.

Failures come at random, at the same rate all the time (a Poisson process), in training, in saves and in restarts. After
one the run starts again, and goes on at the newest checkpoint that is whole:

    train ──interval──▶ copy (stall) ──▶ train on, while the checkpoint is written ──▶ whole: what was trained is safe
      ▲                                     failure ──▶ restart, as often as one fails itself
      └── from the newest whole checkpoint ◀──────────────┘

With `writing` 0, which is a save that training waits for as a whole, it is the cost function of Daly 2006. A node that
fails is replaced at once, or within `restart`: nobody waits for a repair.
"""

import math
from typing import NamedTuple


class FailureCosts(NamedTuple):
    """What failures and saves take from a run. All in seconds."""

    between_failures: float
    """Of the job: mean time from one failure of any node to the next."""
    restart: float
    """From a failure until training goes on, without what is trained again."""
    stall: float
    """Training waits so long for each checkpoint."""
    writing: float
    """From then until the checkpoint is whole, while training goes on. A save that comes sooner waits for it."""


class TimeShares(NamedTuple):
    """What all the time is spent on; together 1."""

    training: float
    """Training that stays: the goodput."""
    saving: float
    """Waiting for saves that stay."""
    again: float
    """Training, and saves, that a failure has undone."""
    restarting: float


def share_time(interval: float, costs: FailureCosts) -> TimeShares:
    """How time is spent in the long run with a checkpoint every `interval` seconds of training.

    From a restart it takes interval + stall + writing without a failure until the first checkpoint is whole, and from
    there a period until each of the next. So between two failures are on average exp(-first / M) / (1 - exp(-period /
    M)) intervals that stay, M being the mean time between failures; and a failure and its restarts take, on average,
    M · exp(restart / M) in all: the time until it comes, M, and restarts that fail themselves.
    """
    mean = costs.between_failures
    period = max(interval, costs.writing) + costs.stall
    first = interval + costs.stall + costs.writing
    is_up = math.exp(-costs.restart / mean)
    # In a second of all the time: starts that keep an interval, and intervals that are kept.
    starts = is_up * math.exp(-first / mean) / mean
    kept = starts / -math.expm1(-period / mean)
    # The first of a start has no writing to wait for.
    training, saving = kept * interval, kept * costs.stall + (kept - starts) * (period - costs.stall - interval)
    return TimeShares(training, saving, max(0.0, is_up - training - saving), 1 - is_up)


def best_interval(costs: FailureCosts) -> float:
    """The seconds of training between checkpoints of which the most stays.

    Young 1974 ("A first order approximation to the optimum checkpoint interval", Communications of the ACM 17, 9) has
    sqrt(2 · stall · mean time between failures); Daly 2006 ("A higher order estimate of the optimum checkpoint interval
    for restart dumps", Future Generation Computer Systems 22, 3) the terms behind it, which count where a save is no
    longer short. A checkpoint that is written beside the training makes the way back longer, but changes the best
    interval in one way only: it is no shorter than the writing, which would hold up the next save.
    """
    mean, stall = costs.between_failures, costs.stall
    if stall >= 2 * mean:
        return max(mean, costs.writing)
    part = stall / (2 * mean)
    daly = math.sqrt(2 * stall * mean) * (1 + math.sqrt(part) / 3 + part / 9) - stall
    return max(daly, costs.writing)
