"""That a long piece of work goes on, told from inside: bytes written, hashed or moved, receipts counted, tensors read.

Slow is not dead: whoever watches for hangs looks whether the count has changed, not how long the work takes.
"""

from collections.abc import Callable
from dataclasses import dataclass

Tell = Callable[[], None]
"""Called after each part of a piece of work: some MiB of a file, a tensor, a receipt."""

CHUNK_BYTES = 4 * 1024**2
"""What is read, written or hashed before it is told."""


@dataclass
class Progress:
    """Counts what is done; told from any thread. Only whether the count changes has a meaning."""

    count: int = 0
    waits_for: tuple[int, ...] = ()
    """The ranks whose part of a common work is not done, where that is known; also the own one."""

    def tell(self) -> None:
        """Something was done. Of two threads at a time one may be lost, and the next call makes up for it."""
        self.count += 1
