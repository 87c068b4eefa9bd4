"""Signs of progress in long work: bytes written, hashed or moved, receipts counted, tensors read.

Slow is not dead: the watch for hangs checks whether the count has changed, not how long the work takes.
"""

from collections.abc import Callable
from dataclasses import dataclass

Tell = Callable[[], None]
"""Called after each part of a piece of work: some MiB of a file, a tensor, a receipt."""

CHUNK_BYTES = 4 * 1024**2
"""How much is read, written or hashed between two calls."""


@dataclass
class Progress:
    """Counts finished pieces of work, from any thread. Only a change of the count has a meaning."""

    count: int = 0
    waits_for: tuple[int, ...] = ()
    """The ranks whose part of shared work is not done, if known; this may include the own rank."""

    def tell(self) -> None:
        """Count one piece of work. A count may be lost if two threads call at once; the next call makes up for it."""
        self.count += 1
