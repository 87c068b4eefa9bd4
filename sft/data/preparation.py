"""From the config's sources to a published token store: blocks of records go in, parts of the store come out.

A killed preparation continues behind the parts that it wrote. If two processes want the same store, the second waits
for the first and opens what it made. The caller decides where the blocks are prepared: in threads of this process, or
on a cluster.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from sft.atomic_files import is_published, write_bytes, write_lines, written_aside
from sft.config import DataConfig, ModelConfig
from sft.data.block_preparer import BlockPreparer, Executor, PreparedBlock, prepare_in_threads
from sft.data.left_out import each_left_out, find_left_out
from sft.data.reading.blocks import Block
from sft.data.reading.sources import read_blocks
from sft.data.record_counts import RecordCounts, TooManyBadError, UnusableDataError, check_bad_share
from sft.data.store_parts import StorePart, open_part, publish_store
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.schema import Rejected

REJECTED = "rejected.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a preparation: records read of the current source, and the share of it that is done."""

    source: str
    num_records: int
    done: float


Report = Callable[[Progress], None]


def prepare_store(
    data: DataConfig,
    model: ModelConfig,
    report: Report = lambda progress: None,
    executor: Executor = prepare_in_threads,
) -> TokenStore:
    """The token store of the config, made if it is missing.

    Raises:
        UserError: a source, the tokenizer or the template is unusable, a record is unusable and `bad_records` is stop,
            or too many records are.
    """
    return build_store(StoreRecipe.of(data, model), report, executor)


def build_store(recipe: StoreRecipe, report: Report, executor: Executor) -> TokenStore:
    """The store of the recipe, made if it is missing. Raises as `prepare_store` does."""
    final = recipe.path
    if is_published(final):
        return _open_checked(recipe)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_name(f".{final.name}.lock")):
            if not is_published(final):
                _make_store(recipe, report, executor)
    except OSError as error:
        raise UserError(
            f"data.cache_dir: the token store cannot be written to {final.parent}: {error.strerror or error}. "
            "Make room there, or give another folder; what is prepared is kept."
        ) from error
    return _open_checked(recipe)


def _make_store(recipe: StoreRecipe, report: Report, executor: Executor) -> None:
    building = recipe.path.with_name(f".{recipe.path.name}.parts")
    building.mkdir(exist_ok=True)
    # Token keys are computed while the blocks are prepared: for a large vocabulary it takes a second.
    with ThreadPoolExecutor(1) as beside:
        keys = beside.submit(recipe.preparer.pipeline.token_keys)
        try:
            parts = _build_parts(building, recipe.preparer, report, executor)
            with written_aside(recipe.path, "scratch") as scratch:
                _publish(parts, recipe, keys.result(), scratch)
        except UnusableDataError:
            # The remedy changes the store's name, so nobody would come back for these parts.
            shutil.rmtree(building, ignore_errors=True)
            raise
    shutil.rmtree(building)


def _open_checked(recipe: StoreRecipe) -> TokenStore:
    """The store, checked again: the limit of bad records may be lower than when it was made."""
    store = TokenStore.open(recipe.path)
    check_bad_share(store.manifest, recipe.preparer.data)
    return store


def _build_parts(building: Path, preparer: BlockPreparer, report: Report, executor: Executor) -> list[StorePart]:
    """Every block's part, in order; existing parts are not made again."""
    parts: dict[str, StorePart] = {}
    num_records: Counter[str] = Counter()
    source_ids = {source.name: i for i, source in enumerate(preparer.data.sources)}

    def path(block: Block | PreparedBlock) -> Path:
        return building / f"{source_ids[block.source]:04d}-{block.number:06d}.safetensors"

    def add(part: StorePart, done: float) -> None:
        parts[part.path.name] = part
        num_records[part.source] += part.num_read
        report(Progress(part.source, num_records[part.source], done))

    def missing() -> Iterator[Block]:
        for source in preparer.data.sources:
            for block in read_blocks(source):
                part = open_part(path(block))
                if part is None:
                    yield block
                else:
                    add(part, block.done)

    # Closed even if it is left early: it may hold threads, or a connection to a cluster.
    with closing(executor(preparer, missing())) as prepared_blocks:
        for prepared in prepared_blocks:
            write_bytes(path(prepared), prepared.part)
            part = StorePart(path(prepared))
            if preparer.data.bad_records == "stop":
                bad = [r for r in part.read_counts().rejected if r.kind == "bad"]
                if bad:
                    raise UnusableDataError(_rejection_message(bad, preparer.data))
            add(part, prepared.done)
    return [parts[name] for name in sorted(parts)]


def _publish(parts: list[StorePart], recipe: StoreRecipe, token_keys: npt.NDArray[np.uint64], scratch: Path) -> None:
    final, inputs, preparer, _ = recipe
    data = preparer.data
    left_out = find_left_out(parts, data, scratch)
    counts = RecordCounts.of(parts, left_out, data)
    counts.check_any_left(data)
    counted = counts.as_manifest()
    lines = (_as_line(r) for r in each_left_out(parts, left_out, data))
    try:
        check_bad_share(counted, data)
    except TooManyBadError as error:
        listed = final.with_name(f"{final.name}.{REJECTED}")
        write_lines(listed, lines)
        raise TooManyBadError(f"{error}\nEach of them: {listed}") from None
    manifest = {
        "kind": "token_store",
        "inputs": inputs,
        "sources": [s.name for s in data.sources],
        **counted,
    }
    with written_aside(final, "publish") as aside:
        write_lines(aside / REJECTED, lines)
        publish_store(parts, left_out.equal_to, token_keys, aside, final, manifest)


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


def _rejection_message(rejected: list[Rejected], data: DataConfig) -> str:
    shown = [f"  {r.where}: {r.reason}" for r in rejected[:10]]
    more = [f"  … and {len(rejected) - 10} more in this block"] if len(rejected) > 10 else []
    way_out = "Correct the data, or set data.bad_records: quarantine to leave such records out and count them."
    if any(source.constructed for source in data.sources if source.name == rejected[0].source):
        way_out = (
            "These are the approved records of the source: find each by its words in `sft review`, and reject or edit "
            "it. Or set data.bad_records: quarantine to leave such records out and count them."
        )
    return "\n".join([f"source {rejected[0].source}: records that cannot be used:", *shown, *more, way_out])
