"""Prepares blocks of records as Ray tasks, on all nodes of the cluster; in a process of its own (`block_process`).

Who started it reads the files and writes the parts; a task gets a block's bytes and gives back a part's. So a node
needs to see the tokenizer and nothing else, and a task that dies with its node is simply run again.
"""

import os
import time
from collections import deque
from collections.abc import Generator, Iterator
from functools import lru_cache
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import ray

from launcher.cluster.block_executor import Connected, Done, Failed, Last, Lost, Preparing, Refused, Wanted
from launcher.cluster.connection import ray_session
from launcher.cluster.ray_watch import RayWatch
from launcher.cluster.ray_words import in_a_sentence
from launcher.interruption import pass_signals_by
from sft.config import DataConfig, ModelConfig
from sft.data.block_preparer import BlockPreparer, PreparedBlock, whole_blocks
from sft.data.reading.blocks import Block
from sft.errors import UserError
from sft.schema import RecordLocation

_BLOCKS_PER_CPU = 2
"""Under way at a time: one that is worked on, and one that waits, so that no CPU does."""

_MAX_RETRIES = 5
"""Of a block whose process or node died: nodes are lost, but a block that kills its process will do it again."""

_OBJECT_STORE_BYTES = 1024**3

_LOOK_SECONDS = 1.0


class _LostError(Exception):
    """Ray is gone; in words."""


def serve(speak: Connection) -> None:
    """Prepare the blocks that come from who has started this process; see `block_executor` for what is said."""
    pass_signals_by()
    try:
        asked: Preparing = speak.recv()
        with ray_session(os.cpu_count() or 1, 0, _OBJECT_STORE_BYTES) as session:
            pass_signals_by()  # Ray has handlers of its own
            speak.send(Connected())
            last = _prepare_all(speak, asked, RayWatch(session))
            speak.send(last)
            if isinstance(last, Lost):
                # To take leave of a Ray that is gone may take minutes. What is left of it ends with this process.
                os._exit(0)
    except UserError as error:
        speak.send(Refused(str(error)))
    except (EOFError, ConnectionError):
        os._exit(1)  # who has started it is gone


def _prepare_all(speak: Connection, asked: Preparing, watch: RayWatch) -> Last:
    try:
        for prepared in _spread_over_ray(asked, _wanted(speak), watch):
            speak.send(prepared)
    except _LostError as error:
        return Lost(str(error))
    except ray.exceptions.RayTaskError as error:
        return Refused(str(error.cause)) if isinstance(error.cause, UserError) else Failed(str(error))
    except ray.exceptions.RayError as error:
        time.sleep(_LOOK_SECONDS)  # Ray may say that something is gone before it is seen what
        return Lost(watch.what_is_lost(patience_seconds=0) or in_a_sentence(error))
    return Done()


def _wanted(speak: Connection) -> Iterator[Block]:
    """The blocks, each asked for when there is room for it."""
    while True:
        speak.send(Wanted())
        block: Block | None = speak.recv()
        if block is None:
            return
        yield block


def _spread_over_ray(
    asked: Preparing, blocks: Iterator[Block], watch: RayWatch
) -> Generator[PreparedBlock, None, None]:
    prepare = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES, scheduling_strategy="SPREAD")(_prepare)
    shared = ray.put((asked.data, asked.model))
    num_cpus = int(ray.cluster_resources().get("CPU", 1))
    under_way: deque[tuple[RecordLocation, Any]] = deque()

    def add(num_blocks: int) -> None:
        under_way.extend((block.where, prepare.remote(shared, block)) for block in islice(blocks, num_blocks))

    add(_BLOCKS_PER_CPU * num_cpus)
    while under_way:
        where, reference = under_way.popleft()
        try:
            prepared = _get(reference, watch)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            raise UserError(
                f"The block of records from {where} on ends every process that prepares it ({_MAX_RETRIES + 1} times): "
                f"{type(error).__name__}. Look at these records, or give the nodes more memory; the same command "
                "goes on with what is prepared."
            ) from error
        add(1)
        yield prepared


def _get(reference: Any, watch: RayWatch) -> PreparedBlock:
    """Raises `_LostError` where Ray is gone, which may not be seen by who waits for something of it."""
    while True:
        try:
            prepared: PreparedBlock = ray.get(reference, timeout=_LOOK_SECONDS)
            return prepared
        except ray.exceptions.GetTimeoutError:
            if text := watch.what_is_lost():
                raise _LostError(text) from None


def _prepare(settings: tuple[str, str], block: Block) -> PreparedBlock:
    preparer = _preparer(*settings)
    with whole_blocks():
        return preparer.prepare(block)


@lru_cache(maxsize=1)
def _preparer(data: str, model: str) -> BlockPreparer:
    """One for each process: loading a tokenizer takes longer than a block."""
    return BlockPreparer(DataConfig.model_validate_json(data), ModelConfig.model_validate_json(model))
