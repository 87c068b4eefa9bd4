"""Flags a loss that is out of line with the last ones. It changes nothing: people look at the packs of such a step.

A loss is out of line if it is more than eight robust standard deviations above the median of the last losses. Unlike
the variance, the median absolute deviation is not moved by an earlier spike (Hampel, 1974).
"""

import statistics
from collections import deque

_WINDOW_STEPS = 64
_LEAST_STEPS = 16
_NUM_DEVIATIONS = 8.0
_MAD_TO_SIGMA = 1.4826  # for a normal distribution


class SpikeDetector:
    """Remembers the last losses of a stage."""

    def __init__(self) -> None:
        """Starts empty, also after a restart."""
        self._losses: deque[float] = deque(maxlen=_WINDOW_STEPS)

    def find(self, loss: float) -> str | None:
        """Why the loss is out of line, in words, or None; it is remembered for the next ones."""
        found = None
        if len(self._losses) >= _LEAST_STEPS:
            median = statistics.median(self._losses)
            sigma = _MAD_TO_SIGMA * statistics.median(abs(other - median) for other in self._losses)
            # If losses are almost equal, the smallest difference would be out of line.
            limit = median + _NUM_DEVIATIONS * max(sigma, 0.01 * median)
            if loss > limit:
                found = f"the loss is {loss:.3f}; the median of the last {len(self._losses)} steps is {median:.3f}"
        self._losses.append(loss)
        return found
