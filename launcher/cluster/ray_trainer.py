"""Ray Train's trainer without the processes that serve nothing here; each takes a second of every start.

Two of them cannot be switched off by a setting. They belong to callbacks, which are left out by name: a version of Ray
that names them otherwise starts them, and trains all the same.
"""

import os
from contextlib import suppress
from typing import Any

from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

_UNUSED_CALLBACKS = {
    # Hands Ray's data sets to the workers, which read packs.
    "DatasetsCallback",
    # Frees the workers' places if the controller dies and its driver lives on. Here the driver of Ray ends then too
    # (see `trainer`), and Ray frees what is a job's.
    "PlacementGroupCleanerCallback",
}

_SETTINGS = {
    # The first rank asks itself whether a node will be taken away (see `capacity_watch`).
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


def begin_coordinator() -> None:
    """Have Ray begin the actor that reserves places for its controllers, without waiting for it.

    The controller itself would begin it, and wait a second for it, before it places workers.
    """
    with suppress(ImportError):  # a version of Ray whose controller asks none, or finds it elsewhere
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (  # noqa: PLC0415
            get_or_create_autoscaling_coordinator,
        )

        get_or_create_autoscaling_coordinator()


class RayTrainer(DataParallelTrainer):
    """A `DataParallelTrainer` that starts fewer processes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Takes what Ray's takes. Ray's settings that are set already keep their value."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        super().__init__(*arguments, **options)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in _UNUSED_CALLBACKS]
