"""Fetches the packs of a node's ranks in a Ray task on that node.

The task belongs to the worker that starts it. When the worker ends, for whatever reason, Ray ends the task too, so no
task fetches for a group of workers that is gone.
"""

from collections.abc import Callable

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sft.data.staging import StagingOrder, StagingReport, fetch_packs

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 5.0


def fetch_as_task(order: StagingOrder, is_wanted: Callable[[], bool]) -> StagingReport | None:
    """Carry the order out in a process of its own on the node of this worker; None if it is no longer wanted."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # It asks for no CPU, so that it starts even if the workers hold all: it waits for files more than it computes.
    task = ray.remote(fetch_packs).options(num_cpus=0, max_retries=0, scheduling_strategy=here).remote(order)
    while is_wanted():
        ended, _ = ray.wait([task], timeout=_POLL_SECONDS)
        if ended:
            report: StagingReport = ray.get(task)
            return report
    ray.cancel(task, force=True)
    ray.wait([task], timeout=_PATIENCE_SECONDS)  # so that it cannot write any more
    return None
