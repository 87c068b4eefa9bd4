"""A group grows where there is room for workers that are of use: one, or as many as share a micro-batch."""

from types import SimpleNamespace

import pytest
import ray

from launcher.cluster import capacity_watch
from launcher.cluster.capacity_watch import CapacityWatch


@pytest.mark.parametrize(
    ("workers", "group_size", "free", "has_room"),
    [
        (2, 1, [1, 0], True),
        (2, 1, [0, 0.5], False),
        (4, 4, [2, 1], False),
        (4, 4, [2, 2], True),
        (6, 4, [1, 1], True),  # two are left over already
        (6, 4, [1, 0], False),
        (8, 4, [4, 4], False),  # of 8 at the most
    ],
)
def test_there_is_room_for_whole_groups(
    monkeypatch: pytest.MonkeyPatch, workers: int, group_size: int, free: list[float], has_room: bool
) -> None:
    now = [100.0]
    nodes = {str(i): {"CPU": 8.0, "GPU": gpus} for i, gpus in enumerate(free)}
    state = SimpleNamespace(available_resources_per_node=lambda: nodes, get_draining_nodes=dict)
    monkeypatch.setattr(ray._private.state, "state", state)
    monkeypatch.setattr(capacity_watch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    watch = CapacityWatch(workers, 8, {"CPU": 2.0, "GPU": 1.0}, print, group_size)
    assert not watch.has_room(), "Ray has not counted it yet"
    now[0] += 11
    assert watch.has_room() == has_room
