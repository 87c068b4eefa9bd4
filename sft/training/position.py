"""Where a rank is in its work, for whoever asks: the watch for hangs, the record of a failure."""

import time
from dataclasses import dataclass, field


@dataclass
class Position:
    """Changed by the training thread alone, and read by others.

    All ranks go through the same places in the same order, so whoever has passed fewer of them is behind.
    """

    stage: str = ""
    step: int | None = None
    place: str = "start"
    packs: tuple[int, ...] = ()
    """Those of this rank, while it trains on them."""
    num_passed: int = 0
    since: float = field(default_factory=time.monotonic)
    """By `time.monotonic`."""

    def enter(self, place: str, step: int | None = None, packs: tuple[int, ...] = (), stage: str | None = None) -> None:
        """Say what comes now; a stage stays until another is named."""
        if stage is not None:
            self.stage = stage
        self.place, self.step, self.packs = place, step, packs
        self.num_passed += 1
        self.since = time.monotonic()

    def __str__(self) -> str:
        """As people read it: `stage broad, step 7, train, packs 28, 29`."""
        parts = (
            f"stage {self.stage}" if self.stage else "",
            "" if self.step is None else f"step {self.step}",
            self.place,
            f"packs {', '.join(map(str, self.packs))}" if self.packs else "",
        )
        return ", ".join(part for part in parts if part)
