"""Watches nodes leave and join: makes Ray recount what an elastic group may have, and reports which node is gone.

Ray's coordinator of reservations looks at the nodes every 20 seconds. Until then Ray restarts a group with its
former nodes, and waits for one that is gone.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import ray

_POLL_SECONDS = 1.0
_COORDINATOR = "AutoscalingCoordinator"  # the name and the namespace of Ray's actor


@contextmanager
def nodes_watched(tell: Callable[[str], None]) -> Iterator[None]:
    """While open, a thread looks at the living nodes every second; `tell` takes the name of each that is gone."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(ended, tell), name="node-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(2 * _POLL_SECONDS)  # no longer: it may wait for a Ray that is gone


def _watch(ended: threading.Event, tell: Callable[[str], None]) -> None:
    known: dict[str, str] = {}
    while not ended.wait(_POLL_SECONDS):
        # A lost head ends the job elsewhere. If Ray has no such actor, it still recounts by its own clock.
        with suppress(Exception):
            nodes = ray.nodes()
            before, known = known, {node["NodeID"]: node["NodeManagerHostname"] for node in nodes if node["Alive"]}
            for gone in before.keys() - known.keys():
                tell(before[gone])
            if before and before.keys() != known.keys():
                coordinator = ray.get_actor(_COORDINATOR, namespace=_COORDINATOR)
                ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=_POLL_SECONDS * 10)


def forget_reservation(train_run_id: str) -> None:
    """Release what this run's Ray Train controller had reserved: the controller is gone and cannot release it.

    Otherwise the next one waits until the reservation expires, after 3 minutes.
    """
    with suppress(Exception):  # if Ray itself is gone, so is the reservation
        coordinator = ray.get_actor(_COORDINATOR, namespace=_COORDINATOR)
        ray.get(coordinator.cancel_request.remote(requester_id=f"train-{train_run_id}"), timeout=_POLL_SECONDS * 10)
