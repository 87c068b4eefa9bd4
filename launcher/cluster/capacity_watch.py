"""What the first worker can see of the cluster's near future: room for more workers, nodes that will be taken away.

Both are questions to Ray's control store, which take milliseconds; they are asked every few seconds at most.
"""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

import ray
import ray._private.state

_EVERY_SECONDS = 5.0

_RAY_KNOWS_AFTER_SECONDS = 10.0
"""A group that restarts before Ray has counted the new node (see `node_watch`) does not grow."""


class CapacityWatch:
    """Asked by the training loop between two steps."""

    def __init__(
        self,
        num_workers: int,
        max_workers: int,
        resources_per_worker: Mapping[str, float],
        report: Callable[[str], None],
        group_size: int = 1,
    ) -> None:
        """`num_workers` run now, each with these resources; `report` takes a line for the log.

        Only whole groups of `group_size` workers are of use.
        """
        self._report = report
        self._least = group_size - num_workers % group_size
        self._may_grow = num_workers + self._least <= max_workers
        self._per_worker = resources_per_worker
        self._asked_at = 0.0
        self._room_since: float | None = None
        self._leaving: frozenset[str] = frozenset()
        self._names: list[str] = []
        self._is_notice_new = False

    def has_room(self) -> bool:
        """Whether there are free resources for one more group of workers, and Ray has had time to count them."""
        self._look()
        return self._room_since is not None and time.monotonic() - self._room_since > _RAY_KNOWS_AFTER_SECONDS

    def has_notice(self) -> bool:
        """Whether Ray was told, since the last question, that a node will be taken away (a spot instance)."""
        self._look()
        is_new, self._is_notice_new = self._is_notice_new, False
        if is_new:
            self._report(f"Ray will take away {', '.join(self._names)}: a checkpoint is saved now")
        return is_new

    def _look(self) -> None:
        if time.monotonic() - self._asked_at < _EVERY_SECONDS:
            return
        self._asked_at = time.monotonic()
        # A Ray that does not answer has nothing to report. The driver notices that Ray is gone.
        with suppress(Exception):
            has_room = self._may_grow and self._is_room()
            self._room_since = (self._room_since or time.monotonic()) if has_room else None
            leaving = frozenset(ray._private.state.state.get_draining_nodes())
            if leaving - self._leaving:
                self._names = _names(leaving)
                self._is_notice_new = True
            self._leaving = leaving

    def _is_room(self) -> bool:
        # Each node counts by itself: what is free in all may be scattered over the nodes.
        nodes = ray._private.state.state.available_resources_per_node()
        return sum(self._workers_on(node) for node in nodes.values()) >= self._least

    def _workers_on(self, free: Mapping[str, float]) -> int:
        return int(min(free.get(name, 0.0) // need for name, need in self._per_worker.items()))


def _names(ids: Collection[str]) -> list[str]:
    nodes = ray.nodes()
    return sorted(node["NodeManagerHostname"] for node in nodes if node["NodeID"] in ids)
