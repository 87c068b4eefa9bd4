"""Which tests run in one process when `pytest -n` spreads them over several, and in which order.

The tests of a file stay together, since they share what its fixtures make; so do those of a folder whose files share
something that takes long to make. All that start a Ray are one group: two Rays would be in each other's way, and while
one is waited for, the other processes have the machine. Those on machines with networks of their own meet none of them.
What takes longest begins first.
"""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

_LONGEST_FIRST = {
    "Ray": (
        *("tests/cluster/", "tests/launcher/test_ray_jobs.py", "tests/chaos/test_ray_schedules.py"),
        *("tests/launcher/test_first_seconds.py", "tests/launcher/test_tutorial.py", "tests/benchmarks/test_cpu.py"),
    ),
    "Slurm": ("tests/slurm/",),
    "a Ray cluster of its own": ("tests/ray_cluster/",),
    "chaos": ("tests/chaos/",),
    "distributed": ("tests/distributed/", "tests/ranks/"),
    "torchrun": ("tests/training/test_torchrun.py",),
    "chat": ("tests/launcher/test_chat",),
}
"""Group → how the ids of its tests begin."""


class GroupScheduling(LoadScopeScheduling):
    """Gives a process the tests of one group after another, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests, which says little about the time

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


_EARLY = ("tests/verification/", "tests/vllm/")
"""Files at the end of the alphabet that take long: as the last ones they would leave the other processes idle."""


def group_of(nodeid: str) -> str:
    """The group of a test: its file's, unless it is one of those above."""
    for group, beginnings in _LONGEST_FIRST.items():
        if nodeid.startswith(beginnings):
            return group
    return nodeid.partition("::")[0]


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests, those of the longest groups at the head."""
    order = {group: place for place, group in enumerate(_LONGEST_FIRST)}

    def place_of(item: pytest.Item) -> int:
        return order.get(group_of(item.nodeid), len(order) + (not item.nodeid.startswith(_EARLY)))

    return sorted(items, key=place_of)
