"""What the user knows about the machines of a job: how often they fail, and how fast network and storage are."""

import math
from typing import NamedTuple


class Nodes(NamedTuple):
    """The machines besides their GPUs; unknown values are None."""

    workers_per_node: int
    node_mtbf_hours: float | None
    """Mean time between the failures of one node."""
    storage_gb_per_second: float | None
    """Of all nodes together, in 10⁹ bytes, for reading and for writing."""
    network_gb_per_second: float | None
    """Of one node, in each direction."""
    restart_seconds: float
    """From a failure until the ranks run again, without reading checkpoint and model."""

    def count(self, num_workers: int) -> int:
        """How many nodes this number of workers needs."""
        return math.ceil(num_workers / self.workers_per_node)
