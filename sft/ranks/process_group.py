"""torch's process group, apart from what is asked in it (`torch_ranks`): its life, its patience, its errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from sft.world import World

GROUP_ERRORS = (dist.DistError, ConnectionError, TimeoutError)
"""What a rank meets in a collective where another rank, or the group itself, is gone."""

_NEVER = timedelta(days=14)
"""As a timeout in milliseconds it still fits into 32 bits, as which torch passes some."""


@contextmanager
def process_group(world: World, timeout: timedelta) -> Iterator[None]:
    """The default group of the ranks that torchrun has started, or of the one rank under plain python."""
    backend = "nccl" if world.on_gpu else "gloo"
    if "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        # torch's stubs do not name HashStore.
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    # Only of a group that is whole: with NCCL this waits for kernels, whose peers never come where a rank has failed.
    dist.destroy_process_group()


def is_left() -> bool:
    """Whether this process still has its group, whose end the process would wait for."""
    return dist.is_initialized()


def leave_waiting_to_the_watch() -> None:
    """No collective gives up by itself, as it would after its process was suspended: that is for the watch to judge."""
    if dist.is_initialized():
        # Also of the groups that the engine has made.
        for group in dist.distributed_c10d._world.pg_map:
            dist.distributed_c10d._set_pg_timeout(_NEVER, group)


def num_collectives() -> int:
    """How many the ranks have begun: each module that is loaded into shards takes some."""
    if not dist.is_initialized():
        return 0
    group: Any = dist.distributed_c10d._get_default_group()  # torch's stubs leave the method out
    return int(group._get_sequence_number_for_group())
