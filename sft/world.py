"""Who this process is among the ranks of a job. Passed as an argument, never held globally."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """One rank's place: `rank` of `size` in the job, `local_rank` of `local_size` on its machine `node`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: str = "localhost"
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is written once per job (metrics, manifests)."""
        return self.rank == 0

    @property
    def node_ranks(self) -> range:
        """The ranks on this one's machine: Ray Train and torchrun number a machine's ranks one after another."""
        first = self.rank - self.local_rank
        return range(first, first + self.local_size)
