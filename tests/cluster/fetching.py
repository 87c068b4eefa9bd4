"""What fetches packs on a node, as an actor: in a module of its own, since Ray's workers import it."""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launcher.cluster.staging import fetch_as_task
from sft.data.staging import StagingOrder, StagingReport


class Worker:
    """As the first worker of a node."""

    def fetch(self, order: StagingOrder) -> StagingReport | None:
        return fetch_as_task(order, lambda: True)


def start_worker(ray_id: str) -> Any:
    """On the node that Ray calls so."""
    here = NodeAffinitySchedulingStrategy(ray_id, soft=False)
    return ray.remote(Worker).options(scheduling_strategy=here, num_cpus=1).remote()
