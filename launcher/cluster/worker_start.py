"""What Ray Train runs in every worker.

The training is imported there, not in the process that starts the workers: that would take it seconds.
"""

from typing import Any

from sft.paused_collector import paused_collector


def train_worker(settings: dict[str, Any]) -> None:
    """Train on this worker (see `launcher.cluster.worker`)."""
    with paused_collector():
        from launcher.cluster.worker import train  # noqa: PLC0415  (see above)

    train(settings)
