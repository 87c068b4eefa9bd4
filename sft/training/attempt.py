"""An attempt is one start of the job's ranks. It has a number, a folder for its logs, and a reason why it ended."""

import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from sft.attempt_record import write_began, write_rank
from sft.errors import TrainingError
from sft.ranks.ranks import Ranks
from sft.run_events import EventLog
from sft.run_folder import AttemptFolder, RunFolder
from sft.training.failures import describe_error, follows_from_a_loss, is_of_the_machine
from sft.training.heartbeat import Heartbeat
from sft.training.run_storage import why_unusable
from sft.world import World

_NONE = -1
"""Instead of a number."""


@dataclass(frozen=True)
class Attempt:
    """This start of the job, as one rank sees it."""

    number: int
    ranks: Ranks
    folder: AttemptFolder
    events: EventLog
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    released: threading.Event = field(default_factory=threading.Event)
    """Set before the group of this rank is ended: errors from then on are not the program's fault."""

    def release(self) -> None:
        """Record that this rank is alive, and that its group will now be ended; from any thread."""
        self.released.set()
        self.events.add("released", f"{self.heartbeat}: the group is ended")


def begin_attempt(run: RunFolder, ranks: Ranks) -> Attempt:
    """The next attempt, with the same number on all ranks; its folder is made by the first.

    Raises:
        TrainingError: on all ranks: the run folder is gone, full, or cannot be written.
        OSError: it cannot be written now.
    """
    world = ranks.world
    mine = _make_folder(run, world) if world.is_first else _NONE
    number = int(ranks.max(torch.tensor([mine])).item())
    if number == _NONE:
        raise TrainingError(why_unusable(run) or f"{run.path} could not be written", is_everywhere=True)
    folder = run.attempt(number)
    write_rank(folder, world)
    # So the heartbeat also shows progress while this rank waits for others.
    return Attempt(number, ranks, folder, EventLog(folder, world.rank), Heartbeat(progress=ranks.progress))


def record_failure(attempt: Attempt, error: BaseException) -> None:
    """Record which error this rank met, and where."""
    heartbeat, what = attempt.heartbeat, describe_error(error)
    is_released = attempt.released.is_set()
    kind = "machine" if is_released or is_of_the_machine(error) else "program"
    # Sizes, addresses and process ids may differ between occurrences of the same error.
    alike = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", what)
    place = {"stage": heartbeat.stage, "step": heartbeat.step, "place": heartbeat.place}
    follows = is_released or follows_from_a_loss(error)
    attempt.events.add("failed", f"{heartbeat}: {what}", of=kind, follows=follows, error=alike, **place)


def _make_folder(run: RunFolder, world: World) -> int:
    """The number of the attempt whose folder was made; `_NONE` if the run folder cannot be used."""
    if not run.config.is_file():
        return _NONE
    number = run.latest_attempt() + 1
    folder = run.attempt(number)
    try:
        folder.path.mkdir(parents=True)
        write_began(folder, world.size)
    except OSError:
        with suppress(OSError):
            folder.path.rmdir()
        if why_unusable(run) is None:
            raise
        return _NONE
    return number
