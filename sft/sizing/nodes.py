"""What a person knows of the machines of a job: how they fail, and how fast network and storage are."""

import math
from typing import NamedTuple


class Nodes(NamedTuple):
    """The machines beside their GPUs; what is not known is None."""

    workers_per_node: int
    node_mtbf_hours: float | None
    """Mean time between the failures of one node."""
    storage_gb_per_second: float | None
    """Of all nodes together, in 10⁹ bytes, for reading as for writing."""
    network_gb_per_second: float | None
    """Of one node, in each direction."""
    restart_seconds: float
    """From a failure until the ranks are there again, without reading checkpoint and model."""

    def count(self, num_workers: int) -> int:
        """How many of them so many workers are on."""
        return math.ceil(num_workers / self.workers_per_node)
