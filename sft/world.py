"""Who this process is among the ranks of a job. Passed as an argument, never held globally."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """One rank's place: `rank` of `size` in the job, `local_rank` on its machine `node`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: str = "localhost"

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is written once per job (metrics, manifests)."""
        return self.rank == 0
