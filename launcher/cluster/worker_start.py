"""What Ray Train runs in every worker.

The training is imported there, not in the process that starts the workers: that would take it seconds.
"""

from typing import Any

from sft.quick_imports import quick_imports


def train_worker(settings: dict[str, Any]) -> None:
    """Train on this worker (see `launcher.cluster.worker`)."""
    with quick_imports():
        from launcher.cluster.worker import train  # noqa: PLC0415  (see above)

    train(settings)
