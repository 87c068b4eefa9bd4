"""When a repeated event of a stage is due: after every so many steps, or after every part of an epoch.

All epochs of a stage have the same number of steps: its steps divided by its epochs.
"""

from typing import NamedTuple, Protocol, Self

from sft.config import SftConfig


class Given(Protocol):
    """A section of the config that says how often something is due."""

    @property
    def every_steps(self) -> int | None:
        """Steps from one to the next."""

    @property
    def every_epochs(self) -> float | None:
        """Epochs from one to the next."""


class Cadence(NamedTuple):
    """After which steps of a stage something is due; if both are given, after the steps of either."""

    every_steps: int | None = None
    steps_between: float | None = None
    """The steps from one to the next if counted in epochs, not rounded; at least 1."""
    also: "Cadence | None" = None
    """It is due whenever this one is, too."""

    @classmethod
    def of(cls, given: Given, num_steps: int, epochs: float | None) -> Self:
        """The cadence of a stage.

        Args:
            given: says how often.
            num_steps: of the stage.
            epochs: that the stage trains; None if its budget counts something else.
        """
        if given.every_epochs is None or epochs is None:
            return cls(given.every_steps)
        return cls(given.every_steps, max(1.0, given.every_epochs * num_steps / epochs))

    def is_due(self, num_done: int) -> bool:
        """Whether it is due after this many steps."""
        if num_done <= 0:
            return False
        if self.also is not None and self.also.is_due(num_done):
            return True
        in_steps = self.every_steps is not None and num_done % self.every_steps == 0
        return in_steps or (self.steps_between is not None and num_done == self._nearest(num_done))

    def due_steps(self, num_steps: int) -> list[int]:
        """The steps before the last of a stage after which it is due, in order."""
        due = set(range(self.every_steps, num_steps, self.every_steps)) if self.every_steps else set()
        if self.steps_between is not None:
            due |= {round(i * self.steps_between) for i in range(1, int(num_steps / self.steps_between) + 1)}
        due |= set(self.also.due_steps(num_steps)) if self.also is not None else set()
        return sorted(step for step in due if step < num_steps)

    def _nearest(self, num_done: int) -> int:
        assert self.steps_between is not None
        return round(max(1, round(num_done / self.steps_between)) * self.steps_between)


def cadence_of_saves(config: SftConfig, num_steps: int, epochs: float | None) -> Cadence:
    """When a stage saves a checkpoint: as the config says, and where it may need the state of an evaluated step."""
    saves, retain = Cadence.of(config.checkpoint, num_steps, epochs), config.evaluate.retain
    if config.checkpoint.best is None and (retain is None or retain.action != "stop"):
        return saves
    return saves._replace(also=Cadence.of(config.evaluate, num_steps, epochs))
