"""Which checkpoints may go. Called after a newer one was published, never before."""

from collections.abc import Sequence


def checkpoints_to_delete(published_steps: Sequence[int], keep_last: int) -> list[int]:
    """The steps whose checkpoints are not among the newest `keep_last`."""
    return sorted(published_steps)[:-keep_last]
