"""From the config's sources to a published token store: blocks of records go in, parts of the store come out.

The store's name is the fingerprint of all that its content depends on, and of nothing else: the run's folder,
batch size and world size do not change it. A killed preparation goes on behind the parts it wrote; of two that want
the same store, the second waits for the first and opens what it made. Where the blocks are prepared is the caller's
affair: in threads of this process, or on a cluster.
"""

import gc
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from sft.atomic_files import fingerprint, is_published, write_bytes, write_text, written_aside
from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.config_effects import store_inputs
from sft.data.formats.formatting import resolve_source
from sft.data.reading.blocks import Block
from sft.data.reading.sources import content_hash, decode_block, read_blocks, read_records
from sft.data.record_counts import RecordCounts, TooManyBadError, UnusableDataError, check_bad_share, find_left_out
from sft.data.record_pipeline import RecordPipeline
from sft.data.store_parts import StorePart, encode_part, open_part, publish_store
from sft.data.token_store import STORE_VERSION, TokenStore, store_path
from sft.errors import UserError
from sft.schema import Record, Rejected

REJECTED = "rejected.jsonl"

_MAX_THREADS = 8
"""Python does its part of a record, a quarter of the time, in one thread at once: more would only wait."""

_TOKENIZER_THREADS = "TOKENIZERS_PARALLELISM"
_OBJECTS_BETWEEN_COLLECTIONS = 100_000

_RESOLVE_RECORDS = 1000
"""So many show which columns a source has."""
_NOTHING: tuple[Any, ...] = (None, "", [], {})
"""What shows nothing of a column."""
_MOST_FILES = 5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is: records of the source that is being read, and the share of it that is done."""

    source: str
    num_records: int
    done: float


class BlockPreparer:
    """Prepares blocks of records: bytes in, bytes out, on any machine that sees the tokenizer."""

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
    """What comes back of a block."""

    source: str
    number: int
    done: float
    part: bytes


@contextmanager
def whole_blocks() -> Iterator[None]:
    """While it is open, this process prepares blocks at the least cost of each, as other blocks run beside it.

    The tokenizer does a block in one thread: its own threads, waiting for each other's texts, take a fifth more time
    in all. Python's collector of cycles comes a few times a block, and passes over what was there before: it would look
    at the same objects again and again while many small ones are made, which is a fifth of Python's work on a record.
    """
    setting, thresholds = os.environ.get(_TOKENIZER_THREADS), gc.get_threshold()
    os.environ[_TOKENIZER_THREADS] = "false"
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        if setting is None:
            del os.environ[_TOKENIZER_THREADS]
        else:
            os.environ[_TOKENIZER_THREADS] = setting


Report = Callable[[Progress], None]
Spread = Callable[[BlockPreparer, Iterator[Block]], Generator[PreparedBlock, None, None]]
"""Prepares blocks somewhere and gives back what they become, in order, with few of them under way at a time."""


def spread_over_threads(preparer: BlockPreparer, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
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


def prepare_store(
    data: DataConfig,
    model: ModelConfig,
    report: Report = lambda progress: None,
    spread: Spread = spread_over_threads,
) -> TokenStore:
    """The token store of the config, made if it is not there.

    Raises:
        UserError: a source, the tokenizer or the template is unusable, a record is and `bad_records` is stop, or too
            many are.
    """
    return build_store(locate_store(data, model), report, spread)


def build_store(located: "Located", report: Report, spread: Spread) -> TokenStore:
    """The store at the place that `locate_store` gave, made if it is not there. Raises as `prepare_store` does."""
    final = located.path
    if is_published(final):
        return _open_checked(located)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_name(f".{final.name}.lock")):
            if not is_published(final):
                _make_store(located, report, spread)
    except OSError as error:
        raise UserError(
            f"data.cache_dir: the token store cannot be written to {final.parent}: {error.strerror or error}. "
            "Make room there, or give another folder; what is prepared is kept."
        ) from error
    return _open_checked(located)


def _make_store(located: "Located", report: Report, spread: Spread) -> None:
    building = located.path.with_name(f".{located.path.name}.parts")
    building.mkdir(exist_ok=True)
    # What the tokens say is worked out beside the blocks: of a large vocabulary it takes a second.
    with ThreadPoolExecutor(1) as beside:
        keys = beside.submit(located.preparer.pipeline.token_keys)
        try:
            parts = _build_parts(building, located.preparer, report, spread)
            _publish(parts, located, keys.result())
        except UnusableDataError:
            # What mends it changes the store's name: nobody would come back for these parts.
            shutil.rmtree(building, ignore_errors=True)
            raise
    shutil.rmtree(building)


def _open_checked(located: "Located") -> TokenStore:
    """The store; the limit of bad records may have been lowered since it was made."""
    store = TokenStore.open(located.path)
    check_bad_share(store.manifest, located.preparer.data)
    return store


class Located(NamedTuple):
    """Where the store of a config lies or will lie, what its name is made of, and who can make it."""

    path: Path
    inputs: dict[str, Any]
    preparer: BlockPreparer


def locate_store(data: DataConfig, model: ModelConfig) -> Located:
    """The place of the config's store; reads the sources' content, for its hash.

    Raises:
        UserError: a source, the tokenizer or the template is unusable.
    """
    preparer = BlockPreparer(resolve_sources(data), model)
    inputs = fingerprint_inputs(preparer.data, model, preparer.pipeline.fingerprint)
    return Located(store_path(data.cache_dir, fingerprint(inputs)), inputs, preparer)


def resolve_sources(data: DataConfig) -> DataConfig:
    """The config with every source's format explicit, as its first records show it.

    Raises:
        UserError: a source cannot be read, or its format cannot be told.
    """
    return data.model_copy(update={"sources": tuple(_resolve(source) for source in data.sources)})


def fingerprint_inputs(data: DataConfig, model: ModelConfig, tokenizer_fingerprint: str) -> dict[str, Any]:
    """Everything that the content of the store depends on; its fingerprint is the store's name.

    That is every field of the two sections, but for those that `sft.config` marks as changing no example. What the
    fields of a source lead to stands in it as the content's hash, what those of the model lead to as the tokenizer's.
    """
    inputs, of_model = store_inputs(data), store_inputs(model)
    sources = zip(inputs["sources"], data.sources, strict=True)
    return {
        "version": STORE_VERSION,
        "tokenizer_and_template": tokenizer_fingerprint,
        **({"model": of_model} if of_model else {}),
        **inputs,
        "sources": [{**given, "content": content_hash(source)} for given, source in sources],
    }


def _resolve(source: SourceConfig) -> SourceConfig:
    """By the fields of the first records together: one alone may lack a column or its content, or be a bad one."""
    fields: dict[str, Any] = {}
    first: Record | None = None
    unread: list[Rejected] = []
    for record in islice(read_records(source), _RESOLVE_RECORDS):
        if isinstance(record, Rejected):
            unread.append(record)
        elif record.fields:
            first = first or record
            fields |= {name: value for name, value in record.fields.items() if fields.get(name) in _NOTHING}
    if first is not None:
        return resolve_source(source, replace(first, fields=fields))
    if source.format == "auto":
        raise UserError(f"source {source.name}: no record can be read, to tell the format from:{_why_unread(unread)}")
    return source


def _why_unread(unread: list[Rejected]) -> str:
    """The first reason of each of the first files."""
    if not unread:
        return " all that there are have no fields. Needed: objects with columns."
    firsts = {rejected.where.file: rejected for rejected in reversed(unread)}
    lines = [f"\n  {rejected.where}: {rejected.reason}" for rejected in reversed(firsts.values())]
    way_out = "\nText has to be UTF-8: one in Latin-1 or Windows-1252 has to be saved as UTF-8."
    is_encoding = any("invalid UTF-8" in rejected.reason for rejected in unread)
    return "".join(lines[:_MOST_FILES]) + (way_out if is_encoding else "")


def _build_parts(building: Path, preparer: BlockPreparer, report: Report, spread: Spread) -> list[StorePart]:
    """Every block's part, in order; those that are there already are not made again."""
    parts: dict[str, StorePart] = {}
    num_records: Counter[str] = Counter()
    source_ids = {source.name: i for i, source in enumerate(preparer.data.sources)}

    def path(block: Block | PreparedBlock) -> Path:
        return building / f"{source_ids[block.source]:04d}-{block.number:06d}.safetensors"

    def add(part: StorePart, done: float) -> None:
        source = part.counts.source
        parts[part.path.name] = part
        num_records[source] += part.counts.num_read
        report(Progress(source, num_records[source], done))

    def missing() -> Iterator[Block]:
        for source in preparer.data.sources:
            for block in read_blocks(source):
                part = open_part(path(block))
                if part is None:
                    yield block
                else:
                    add(part, block.done)

    # Closed even if it is left early: it may hold threads, or a connection to a cluster.
    with closing(spread(preparer, missing())) as prepared_blocks:
        for prepared in prepared_blocks:
            write_bytes(path(prepared), prepared.part)
            part = StorePart(path(prepared))
            bad = [r for r in part.counts.rejected if r.kind == "bad"]
            if bad and preparer.data.bad_records == "stop":
                raise UnusableDataError(_rejection_message(bad))
            add(part, prepared.done)
    return [parts[name] for name in sorted(parts)]


def _publish(parts: list[StorePart], located: Located, token_keys: npt.NDArray[np.uint64]) -> None:
    final, inputs, preparer = located
    data = preparer.data
    equal_to, duplicates = find_left_out(parts, data)
    rejected = [r for part in parts for r in part.counts.rejected] + duplicates
    counts = RecordCounts.of(parts, rejected, data)
    counts.check_any_left(data)
    counted = counts.as_manifest()
    lines = "".join(_as_line(r) for r in rejected)
    try:
        check_bad_share(counted, data)
    except TooManyBadError as error:
        listed = final.with_name(f"{final.name}.{REJECTED}")
        write_text(listed, lines)
        raise TooManyBadError(f"{error}\nEach of them: {listed}") from None
    manifest = {
        "kind": "token_store",
        "inputs": inputs,
        "sources": [s.name for s in data.sources],
        "notes": list(dict.fromkeys(note for part in parts for note in part.counts.notes)),
        **counted,
    }
    with written_aside(final, "publish") as aside:
        write_text(aside / REJECTED, lines)
        publish_store(parts, equal_to, token_keys, aside, final, manifest)


def _as_line(rejected: Rejected) -> str:
    where = rejected.where
    content = {
        "source": rejected.source,
        "file": where.file,
        "line" if where.is_line else "record": where.number,
        **({} if where.instance is None else {"instance": where.instance}),
        "kind": rejected.kind,
        "reason": rejected.reason,
        "task": rejected.task,
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _rejection_message(rejected: list[Rejected]) -> str:
    shown = [f"  {r.where}: {r.reason}" for r in rejected[:10]]
    more = [f"  … and {len(rejected) - 10} more in this block"] if len(rejected) > 10 else []
    way_out = "Correct the data, or set data.bad_records: quarantine to leave such records out and count them."
    return "\n".join([f"source {rejected[0].source}: records that cannot be used:", *shown, *more, way_out])
