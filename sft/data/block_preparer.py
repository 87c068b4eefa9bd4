"""Turns blocks of records into the bytes of a store's parts, in the threads of this process or elsewhere."""

import gc
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from sft.config import DataConfig, ModelConfig
from sft.data.reading.blocks import Block
from sft.data.reading.sources import decode_block
from sft.data.record_pipeline import RecordPipeline
from sft.data.store_parts import encode_part

_MAX_THREADS = 8
"""Python's part of a record, a quarter of the time, runs in one thread at a time: more threads would only wait."""

_TOKENIZER_THREADS = "TOKENIZERS_PARALLELISM"
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


class BlockPreparer:
    """Prepares blocks of records: bytes in, bytes out, on any machine that has the tokenizer."""

    def __init__(self, data: DataConfig, model: ModelConfig) -> None:
        """`data` has sources whose formats are explicit.

        Raises:
            UserError: the tokenizer or the template is unusable.
        """
        self.data = data
        self.model = model
        self.pipeline = RecordPipeline(data, model)

    def prepare(self, block: Block) -> "PreparedBlock":
        """The part of the store that the block becomes."""
        source_id = next(i for i, source in enumerate(self.data.sources) if source.name == block.source)
        kept, counts = self.pipeline.prepare(decode_block(block), self.data.sources[source_id], source_id)
        part = encode_part(kept, counts, self.pipeline.tokenizer.token_dtype)
        return PreparedBlock(block.source, block.number, block.done, part)


class PreparedBlock(NamedTuple):
    """The result for a block."""

    source: str
    number: int
    done: float
    part: bytes


@contextmanager
def whole_blocks() -> Iterator[None]:
    """Inside this context the process prepares each block at the least total cost, since other blocks run beside it.

    The tokenizer processes a block in one thread: its own threads wait for each other's texts and take a fifth more
    time in total. Python's cycle collector runs only a few times a block, and hardly ever looks at older objects:
    otherwise it would check the same objects again and again while many small ones are made, a fifth of Python's work
    on a record.
    """
    setting, thresholds = os.environ.get(_TOKENIZER_THREADS), gc.get_threshold()
    os.environ[_TOKENIZER_THREADS] = "false"
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if setting is None:
            del os.environ[_TOKENIZER_THREADS]
        else:
            os.environ[_TOKENIZER_THREADS] = setting


Executor = Callable[[BlockPreparer, Iterator[Block]], Generator[PreparedBlock, None, None]]
"""Prepares blocks somewhere and yields the results in order; only a few blocks are under way at a time."""


def prepare_in_threads(preparer: BlockPreparer, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
    """Prepare the blocks in this process."""
    num_threads = min((os.cpu_count() or 1) + 1, _MAX_THREADS)
    with ThreadPoolExecutor(num_threads) as threads, whole_blocks():
        under_way: deque[Future[PreparedBlock]] = deque()
        try:
            under_way.extend(threads.submit(preparer.prepare, block) for block in islice(blocks, 2 * num_threads))
            while under_way:
                prepared = under_way.popleft().result()
                under_way.extend(threads.submit(preparer.prepare, block) for block in islice(blocks, 1))
                yield prepared
        finally:
            for future in under_way:
                future.cancel()
