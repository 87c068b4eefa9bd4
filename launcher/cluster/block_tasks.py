"""Prepares blocks of records as Ray tasks, on all nodes of the cluster.

The driver reads the files and writes the parts; a task gets a block's bytes and gives back a part's. So a node needs to
see the tokenizer and nothing else, and a task that dies with its node is simply run again.
"""

import os
from collections import deque
from collections.abc import Generator, Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import ray

from launcher.cluster.connection import ray_session
from sft.config import DataConfig, ModelConfig
from sft.data.block_preparer import BlockPreparer, PreparedBlock, prepare_in_threads, whole_blocks
from sft.data.reading.blocks import Block
from sft.errors import UserError
from sft.schema import RecordLocation

_BLOCKS_PER_CPU = 2
"""Under way at a time: one that is worked on, and one that waits, so that no CPU does."""

_MAX_RETRIES = 5
"""Of a block whose process or node died: nodes are lost, but a block that kills its process will do it again."""

_OBJECT_STORE_BYTES = 1024**3

_LEAST_BLOCKS, _LEAST_CPUS = 32, 4
"""On one machine with less to do, or less to do it with, threads are done before Ray's processes have started."""


def prepare_on_cluster(preparer: BlockPreparer, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
    """Prepare the blocks on the cluster of `RAY_ADDRESS`; without one, on this machine's CPUs where there are many.

    Raises:
        UserError: the cluster cannot be reached, or a task found that the tokenizer is unusable on its node.
    """
    is_named = bool(os.environ.get("RAY_ADDRESS"))
    num_cpus = os.cpu_count() or 1
    first = list(islice(blocks, 1 if is_named else _LEAST_BLOCKS))
    if not first or (not is_named and (len(first) < _LEAST_BLOCKS or num_cpus < _LEAST_CPUS)):
        yield from prepare_in_threads(preparer, chain(first, blocks))
        return
    with ray_session(num_cpus, 0, _OBJECT_STORE_BYTES):
        yield from _prepare_on_ray(preparer, chain(first, blocks))


def _prepare_on_ray(preparer: BlockPreparer, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
    prepare = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES, scheduling_strategy="SPREAD")(_prepare)
    shared = ray.put((preparer.data.model_dump_json(), preparer.model.model_dump_json()))
    num_cpus = int(ray.cluster_resources().get("CPU", 1))
    under_way: deque[tuple[RecordLocation, Any]] = deque()

    def add(num_blocks: int) -> None:
        under_way.extend((block.where, prepare.remote(shared, block)) for block in islice(blocks, num_blocks))

    add(_BLOCKS_PER_CPU * num_cpus)
    while under_way:
        where, reference = under_way.popleft()
        try:
            prepared: PreparedBlock = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            raise UserError(
                f"The block of records from {where} on ends every process that prepares it ({_MAX_RETRIES + 1} times): "
                f"{type(error).__name__}. Look at these records, or give the nodes more memory; the same command "
                "goes on with what is prepared."
            ) from error
        add(1)
        yield prepared


def _prepare(settings: tuple[str, str], block: Block) -> PreparedBlock:
    preparer = _preparer(*settings)
    with whole_blocks():
        return preparer.prepare(block)


@lru_cache(maxsize=1)
def _preparer(data: str, model: str) -> BlockPreparer:
    """One for each process: loading a tokenizer takes longer than a block."""
    return BlockPreparer(DataConfig.model_validate_json(data), ModelConfig.model_validate_json(model))
