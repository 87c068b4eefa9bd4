"""What happens to a step whose loss or gradient is not finite: the run stops, or the step makes no update."""

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from sft.data.loader import StepLoader
from sft.engine.engine import NonFiniteError
from sft.errors import TrainingError
from sft.run_events import EventLog
from sft.world import World


@dataclass
class SkipRule:
    """Counts the steps without an update, the same on all ranks."""

    policy: Literal["stop", "skip"]
    max_in_a_row: int
    events: EventLog
    world: World
    num_skipped: int = 0
    """In the whole stage: the optimizer has made this many fewer updates than there were steps."""
    _in_a_row: int = 0

    def count_update(self) -> None:
        """Count a step that made its update."""
        self._in_a_row = 0

    def count_skipped(self, step: int, loader: StepLoader, error: NonFiniteError) -> None:
        """Count a step that made no update.

        Raises:
            TrainingError: on all ranks, like the engine's error: the policy is to stop, or too many steps in a row were
                skipped.
        """
        text = f"step {step}, {_where(step, loader, error, self.world)}: {error}"
        if self.policy == "stop":
            raise TrainingError(
                f"{text}\nNo update was made. Look at these packs, lower the learning rate, or set train.non_finite: "
                "skip to leave such steps out; the same command goes on from the last checkpoint.",
                is_everywhere=True,
            ) from error
        self.num_skipped += 1
        self._in_a_row += 1
        if self.world.is_first:
            self.events.add("skipped", text, step=step)
        if self._in_a_row >= self.max_in_a_row:
            raise TrainingError(
                f"{text}\n{self._in_a_row} steps in a row were not finite (train.max_skipped_steps): the model has "
                "diverged. Lower the learning rate, and go back to an older checkpoint.",
                is_everywhere=True,
            ) from error


def _where(step: int, loader: StepLoader, error: NonFiniteError, world: World) -> str:
    """The packs that may be the cause: those of the ranks whose loss is not finite, or all packs of the step."""
    if not error.ranks:
        packs = loader.steps.step_packs(step)
        return f"packs {packs.start} to {packs.stop - 1}"
    parts = []
    for data_rank, ranks in groupby(error.ranks, lambda rank: replace(world, rank=rank).data_rank):
        own = ", ".join(map(str, replace(loader, rank=data_rank).own_packs(step)))
        shown = ", ".join(map(str, ranks))
        parts.append(f"rank{'s' if ',' in shown else ''} {shown} with packs {own}")
    return " and ".join(parts)
