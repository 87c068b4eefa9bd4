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
    sequence_parallel: int = 1
    """So many consecutive ranks feed the same micro-batches, each a part of every row (`train.sequence_parallel`).
    Ranks that are left over behind the last whole group feed nothing."""

    @property
    def data_size(self) -> int:
        """How many groups feed micro-batches of their own."""
        return self.size // self.sequence_parallel

    @property
    def data_rank(self) -> int:
        """Which of them this rank belongs to; `data_size` if it is left over."""
        return self.rank // self.sequence_parallel

    @property
    def sequence_ranks(self) -> range:
        """The ranks that share this one's micro-batches, itself included; a rank that is left over is alone."""
        if self.data_rank == self.data_size:
            return range(self.rank, self.rank + 1)
        first = self.data_rank * self.sequence_parallel
        return range(first, first + self.sequence_parallel)

    @property
    def num_parts(self) -> int:
        """How many parts its group cuts every row into: one for each of its ranks."""
        return len(self.sequence_ranks)

    @property
    def sequence_place(self) -> int:
        """Which part of every row this rank runs."""
        return self.rank - self.sequence_ranks.start

    @property
    def speaks_for_group(self) -> bool:
        """Whether this rank says what its group has fed, which the others have fed too."""
        return self.sequence_place == 0

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

    @property
    def node_data_ranks(self) -> range:
        """The groups (`data_rank`) that have a rank on this machine."""
        ranks = self.node_ranks
        return range(ranks.start // self.sequence_parallel, min(self.data_size, self._group_behind(ranks.stop)))

    def _group_behind(self, rank: int) -> int:
        return -(-rank // self.sequence_parallel)
