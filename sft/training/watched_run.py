"""Runs one attempt: decides whether another try helps, watches for hangs, and records why it ended."""

import time
from dataclasses import dataclass

from sft.attempt_record import End, Why, read_end, write_end
from sft.checkpoint.saver import CheckpointError
from sft.errors import TrainingError, UserError
from sft.ranks.agreement import raise_together
from sft.training.attempt import Attempt, record_failure
from sft.training.curriculum import run_curriculum
from sft.training.determinism import refused_in_words
from sft.training.hang_watch import HangWatch
from sft.training.last_words import describe_end
from sft.training.loop import ResizeError
from sft.training.restarts import pause_seconds, read_history, why_to_give_up
from sft.training.run_context import RunContext
from sft.training.run_storage import why_unusable


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give up, and when a rank counts as hanging.

    Attributes:
        first_attempt: the first attempt of this start of the driver; earlier failures do not count.
        max_failures: the most starts in a row without progress; -1: any number.
        hang_timeout_seconds: a rank without progress for this long counts as hanging.
    """

    first_attempt: int
    max_failures: int
    hang_timeout_seconds: float


def run_watched(context: RunContext, limits: Limits) -> Why:
    """Run the curriculum in this attempt; how it ended is also written to `ended.json`.

    Raises:
        Exception: an error that another start may fix, or that only this rank knows; it is on record.
    """
    attempt, world = context.attempt, context.attempt.ranks.world
    watch = HangWatch(attempt.heartbeat, world, attempt.folder, attempt.events, limits.hang_timeout_seconds)
    try:
        _learn_from_the_past(context, limits)
        watch.start()
        with refused_in_words():
            finished = run_curriculum(context)
        return _end(attempt, world.is_first, "done" if finished else "stopped")
    except (UserError, TrainingError) as error:
        why: Why = "wrong input" if isinstance(error, UserError) else "failed"
        if world.size > 1 and not error.is_everywhere:
            # The others wait for this rank. Its exception ends the group, and the next start finds the reason.
            _end(attempt, True, why, str(error))
            raise
        return _end(attempt, world.is_first, why, str(error))
    except ResizeError:
        _end(attempt, world.is_first, "regroup")
        raise
    except BaseException as error:
        is_of_storage = isinstance(error, OSError | CheckpointError)
        why_not = why_unusable(context.folder) if is_of_storage else None
        if why_not is None:
            record_failure(attempt, error)
            raise
        _end(attempt, True, "failed", why_not)
        if world.size > 1:
            raise TrainingError(why_not) from error
        return "failed"
    finally:
        watch.stop()


def _end(attempt: Attempt, is_mine: bool, why: Why, message: str = "") -> Why:
    if is_mine and attempt.folder.path.is_dir():
        write_end(attempt.folder, End(why, message))
    return why


def _learn_from_the_past(context: RunContext, limits: Limits) -> None:
    """If the last start failed: wait a little, or give up if this one would fail, too."""
    attempt, run = context.attempt, context.folder
    wrong_input, reason = None, None
    if attempt.ranks.world.is_first and attempt.number > limits.first_attempt:
        before = run.attempt(attempt.number - 1)
        ended = read_end(before)
        if ended is None:
            text = describe_end(before)
            attempt.events.add("restarted", f"attempt {attempt.number - 1} ended: {text}")
            history = read_history(run, limits.first_attempt, attempt.number, limits.max_failures)
            reason = why_to_give_up(history, limits.max_failures)
            if reason is None:
                time.sleep(pause_seconds(history))
        elif ended.why == "wrong input":
            wrong_input = ended.message
        elif ended.why == "failed":
            reason = ended.message
    raise_together(attempt.ranks, wrong_input)
    raise_together(attempt.ranks, reason, TrainingError)
