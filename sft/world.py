"""Which rank of a job this process is, and what it computes on. Passed as an argument, never a global."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """One rank's place: `rank` of `size` in the job, `local_rank` of `local_size` on its machine `node`.

    `device` is `cpu` or a GPU, such as `cuda:0`. The code that starts the ranks decides it, not torch: a rank that
    should train on CPUs does so even if there are GPUs.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: str = "localhost"
    local_size: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is written once per job (metrics, manifests)."""
        return self.rank == 0

    @property
    def on_gpu(self) -> bool:
        """Whether this rank computes on a GPU."""
        return self.device.startswith("cuda")

    @property
    def node_ranks(self) -> range:
        """The ranks on this machine: Ray Train and torchrun number a machine's ranks consecutively."""
        first = self.rank - self.local_rank
        return range(first, first + self.local_size)
