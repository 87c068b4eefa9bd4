"""What a rank does now, and whether it makes progress, for the hang watch and the record of a failure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sft.progress import Progress


def _nothing_else() -> int:
    return 0


@dataclass
class Heartbeat:
    """Only the training thread changes it; others read it.

    All ranks go through the same places in the same order, so a rank that has passed fewer of them is behind.
    """

    stage: str = ""
    step: int | None = None
    place: str = "start"
    packs: tuple[int, ...] = ()
    """The packs of this rank, while it trains on them."""
    num_passed: int = 0
    progress: Progress = field(default_factory=Progress)
    """The progress of long work at this place."""
    also_counts: Callable[[], int] = _nothing_else
    """Another count that grows while the work at this place goes on."""

    def enter(
        self,
        place: str,
        step: int | None = None,
        packs: tuple[int, ...] = (),
        stage: str | None = None,
        also_counts: Callable[[], int] = _nothing_else,
    ) -> None:
        """Enter a place; a stage stays until another is named."""
        if stage is not None:
            self.stage = stage
        self.place, self.step, self.packs, self.also_counts = place, step, packs, also_counts
        self.progress.waits_for = ()
        self.num_passed += 1

    def mark(self) -> tuple[int, int, int]:
        """Changes whenever a place is passed, or the work at this one goes on."""
        return self.num_passed, self.progress.count, self.also_counts()

    def __str__(self) -> str:
        """As people read it: `stage broad, step 7, train, packs 28, 29`."""
        parts = (
            f"stage {self.stage}" if self.stage else "",
            "" if self.step is None else f"step {self.step}",
            self.place,
            f"packs {', '.join(map(str, self.packs))}" if self.packs else "",
        )
        return ", ".join(part for part in parts if part)
