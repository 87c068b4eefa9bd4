"""The lifetime and timeouts of torch's process group; `torch_ranks` has its collectives."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from sft.world import World

NEVER = timedelta(days=14)
"""It fits into 32 bits as milliseconds, which is how torch passes some timeouts."""


@contextmanager
def process_group(world: World, timeout: timedelta) -> Iterator[None]:
    """The default group of the ranks that torchrun started, or of the single rank under plain python."""
    backend = "nccl" if world.on_gpu else "gloo"
    if "MASTER_ADDR" in os.environ:
        join_group(backend, timeout)
    else:
        # torch's stubs do not name HashStore.
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    leave_group()


def join_group(backend: str, timeout: timedelta) -> None:
    """Join the default group, as the variables of torchrun say."""
    dist.init_process_group(backend, timeout=timeout)


def leave_group() -> None:
    """Destroy the group. Only if no rank failed: with NCCL this waits for kernels, whose peers never come then."""
    dist.destroy_process_group()


def is_left() -> bool:
    """Whether this process still has its group; then its exit would wait for the end of the group."""
    return dist.is_initialized()


def leave_waiting_to_the_watch() -> None:
    """Let no collective time out by itself, as after a suspension of its process: the watch decides about hangs."""
    if dist.is_initialized():
        # This includes the groups that the engine made.
        for group in dist.distributed_c10d._world.pg_map:
            dist.distributed_c10d._set_pg_timeout(NEVER, group)


def num_collectives() -> int:
    """How many collectives the ranks have begun: each module that is loaded into shards takes some."""
    if not dist.is_initialized():
        return 0
    group: Any = dist.distributed_c10d._get_default_group()  # torch's stubs leave the method out
    return int(group._get_sequence_number_for_group())
