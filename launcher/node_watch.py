"""Has Ray count again what an elastic group may have, as soon as a node vanishes or joins.

Ray's coordinator of reservations looks at the nodes every 20 seconds. Until then a group is started again with the
nodes that it had, and waits for one that is gone.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray

_POLL_SECONDS = 1.0
_COORDINATOR = "AutoscalingCoordinator"  # the name and the namespace of Ray's actor


@contextmanager
def nodes_watched() -> Iterator[None]:
    """While it is open, a thread compares the living nodes with those of a second before."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(ended,), name="node-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10 * _POLL_SECONDS)


def _watch(ended: threading.Event) -> None:
    known: frozenset[str] = frozenset()
    while not ended.wait(_POLL_SECONDS):
        # A head that is lost ends the job elsewhere; where Ray has no such actor, its own clock is left.
        with suppress(Exception):
            # Ray's stubs leave this function without types.
            nodes = ray.nodes()  # type: ignore[no-untyped-call]
            alive = frozenset(node["NodeID"] for node in nodes if node["Alive"])
            if known and alive != known:
                coordinator = ray.get_actor(_COORDINATOR, namespace=_COORDINATOR)
                ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=_POLL_SECONDS * 10)
            known = alive
