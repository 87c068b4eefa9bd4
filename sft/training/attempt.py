"""An attempt is one start of the job's ranks. It has a number, a folder for its logs, and a reason why it ended."""

import threading
from contextlib import suppress
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from sft.attempt_record import write_began, write_rank
from sft.checkpoint.rank_group import RankGroup
from sft.errors import TrainingError
from sft.run_events import EventLog
from sft.run_folder import AttemptFolder, RunFolder
from sft.training.agreement import all_reduce_max
from sft.training.position import Position
from sft.training.run_storage import why_unusable
from sft.world import World

_NONE = -1
"""Instead of a number."""


@dataclass(frozen=True)
class Attempt:
    """This start of the job, as one rank sees it."""

    number: int
    world: World
    folder: AttemptFolder
    events: EventLog
    position: Position = field(default_factory=Position)
    released: threading.Event = field(default_factory=threading.Event)
    """Set before the group of this rank is taken down: what fails from then on is no fault of the program."""

    @property
    def group(self) -> RankGroup:
        """The ranks; waiting for their work counts as progress at this rank's position."""
        return RankGroup(self.world, all_reduce_max, self.position.progress)

    def release(self) -> None:
        """Say that this rank is alive, and that its group will now be taken down; from any thread."""
        self.released.set()
        self.events.add("released", f"{self.position}: the group is ended")


def begin_attempt(run: RunFolder, world: World) -> Attempt:
    """The next attempt, with the same number on all ranks; its folder is made by the first.

    Raises:
        TrainingError: on all ranks: the run folder is gone, full, or cannot be written.
        OSError: it cannot be written now.
    """
    number = torch.zeros(1, dtype=torch.int64)
    if world.is_first:
        number[0] = _make_folder(run, world)
    if dist.is_initialized() and world.size > 1:
        on_device = number.to(world.device)
        dist.broadcast(on_device, src=0)
        number = on_device.cpu()
    if int(number) == _NONE:
        raise TrainingError(why_unusable(run) or f"{run.path} could not be written", is_everywhere=True)
    folder = run.attempt(int(number))
    write_rank(folder, world)
    return Attempt(int(number), world, folder, EventLog(folder, world.rank))


def _make_folder(run: RunFolder, world: World) -> int:
    """The number of the attempt whose folder was made; `_NONE` where the run folder cannot be used."""
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
