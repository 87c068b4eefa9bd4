"""From the config's sources to a published token store: read, format, render, tokenize, block by block.

The store's name is the fingerprint of all that its content depends on, and of nothing else: the run's folder,
batch size and world size do not change it. A killed preparation goes on behind the last block it wrote; of two
that want the same store, the second waits for the first and opens what it made.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from sft.atomic_files import fingerprint, is_published, write_text, written_aside
from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.data.chat_template import build_template_renderer, load_tokenizer
from sft.data.formatting import RecordError, check_columns, format_record
from sft.data.rendering import ConversationRenderer
from sft.data.sources import content_hash, read_records
from sft.data.token_store import STORE_VERSION, StoredExample, TokenStore, publish_store, read_part_counts, write_part
from sft.data.tokenization import ExampleTokenizer
from sft.errors import UserError
from sft.schema import Conversation, Example, Record, Rejected

BLOCK_RECORDS = 2048
REJECTED = "rejected.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is."""

    source: str
    num_records: int


Report = Callable[[Progress], None]


def store_path(data: DataConfig, store_fingerprint: str) -> Path:
    """Where the store with this fingerprint lies."""
    return data.cache_dir.expanduser() / "tokens" / store_fingerprint


def prepare_store(data: DataConfig, model: ModelConfig, report: Report = lambda progress: None) -> TokenStore:
    """The token store of the config, made if it is not there.

    Raises:
        UserError: a source, the tokenizer or the template is unusable, or a record is and `bad_records` is stop.
    """
    tokenizer = load_tokenizer(model)
    example_tokenizer = ExampleTokenizer(tokenizer)
    inputs = fingerprint_inputs(data, example_tokenizer.fingerprint)
    final = store_path(data, fingerprint(inputs))
    if is_published(final):
        return TokenStore.open(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(final.with_name(f".{final.name}.lock")):
        if not is_published(final):
            renderer = ConversationRenderer(build_template_renderer(tokenizer), data.train_on)
            building = final.with_name(f".{final.name}.parts")
            try:
                parts = [
                    part
                    for i, source in enumerate(data.sources)
                    for part in _build_parts(building, source, i, data, renderer, example_tokenizer, report)
                ]
                _publish(parts, final, inputs, data)
            except UserError:
                # What mends it changes the store's name: nobody would come back for these parts.
                shutil.rmtree(building, ignore_errors=True)
                raise
            shutil.rmtree(building)
    return TokenStore.open(final)


def fingerprint_inputs(data: DataConfig, tokenizer_fingerprint: str) -> dict[str, Any]:
    """Everything that the content of the store depends on; its fingerprint is the store's name."""
    return {
        "version": STORE_VERSION,
        "tokenizer_and_template": tokenizer_fingerprint,
        "sources": [
            {**s.model_dump(mode="json", exclude={"path", "split", "subset"}), "content": content_hash(s)}
            for s in data.sources
        ],
        **data.model_dump(mode="json", include={"max_len_tokens", "overlong", "bad_records", "train_on"}),
    }


def prompt_hash(conversation: Conversation) -> int:
    """A 64-bit hash of all turns before the first answer to a user, equal for equal prompts.

    White space and case do not count. An answer that opens the conversation (a greeting) is part of the prompt.
    """
    turns: list[str] = []
    asked = False
    for message in conversation.messages:
        if message.role == "assistant" and asked:
            break
        asked |= message.role == "user"
        turns.append(f"{message.role}\x1f{' '.join(message.content.lower().split())}")
    return int.from_bytes(hashlib.sha256("\x1e".join(turns).encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _build_parts(
    building: Path,
    source: SourceConfig,
    source_id: int,
    data: DataConfig,
    renderer: ConversationRenderer,
    tokenizer: ExampleTokenizer,
    report: Report,
) -> Iterator[Path]:
    num_records = 0
    for number, block in enumerate(_blocks(source)):
        part = building / f"{source_id:04d}-{number:06d}"
        if read_part_counts(part) is None:
            stored, rejected, num_overlong = _prepare_block(block, source, source_id, data, renderer, tokenizer)
            if rejected and data.bad_records == "stop":
                raise UserError(_rejection_message(rejected))
            counts = {
                "num_read": len(block),
                "num_overlong": dict(num_overlong),
                "rejected": [[r.where, r.reason] for r in rejected],
            }
            write_part(part, stored, counts, tokenizer.token_dtype)
        num_records += len(block)
        report(Progress(source.name, num_records))
        yield part


def _blocks(source: SourceConfig) -> Iterator[tuple[Record | Rejected, ...]]:
    checked = False
    records = read_records(source)
    while block := tuple(islice(records, BLOCK_RECORDS)):
        if not checked:
            first = next((r for r in block if isinstance(r, Record)), None)
            if first is not None:
                check_columns(source, first)
                checked = True
        yield block


def _prepare_block(
    block: Sequence[Record | Rejected],
    source: SourceConfig,
    source_id: int,
    data: DataConfig,
    renderer: ConversationRenderer,
    tokenizer: ExampleTokenizer,
) -> tuple[list[StoredExample], list[Rejected], Counter[str]]:
    """The block's examples, the records that cannot be used, and how many examples of each task are too long."""
    rejected = [record for record in block if isinstance(record, Rejected)]
    conversations, renderings = [], []
    for record in block:
        if isinstance(record, Record):
            try:
                conversation = format_record(record, source)
                renderings.append(renderer.render(conversation))
                conversations.append(conversation)
            except RecordError as error:
                rejected.append(Rejected(source.name, record.index, record.where, str(error)))
    stored: list[StoredExample] = []
    num_overlong: Counter[str] = Counter()
    for conversation, example in zip(conversations, tokenizer.tokenize(renderings), strict=True):
        if isinstance(example, Example) and len(example.input_ids) > data.max_len_tokens:
            if data.overlong == "drop":
                num_overlong[conversation.task] += 1
                continue
            example = RecordError(f"{len(example.input_ids)} tokens; data.max_len_tokens allows {data.max_len_tokens}")
        if isinstance(example, RecordError):
            rejected.append(Rejected(source.name, conversation.index, conversation.where, str(example)))
        else:
            key = prompt_hash(conversation)
            stored.append(StoredExample(example, conversation.task, source_id, conversation.index, key))
    return stored, sorted(rejected, key=lambda r: r.index), num_overlong


def _publish(parts: Sequence[Path], final: Path, inputs: dict[str, Any], data: DataConfig) -> None:
    counts = [read_part_counts(part) or {} for part in parts]
    num_read = sum(c["num_read"] for c in counts)
    rejected = [r for c in counts for r in c["rejected"]]
    overlong: Counter[str] = Counter()
    for c in counts:
        overlong.update(c["num_overlong"])
    num_kept = num_read - len(rejected) - overlong.total()
    if num_kept == 0:
        raise UserError(
            f"No example is left of {num_read} records: {overlong.total()} are longer than data.max_len_tokens "
            f"({data.max_len_tokens}), {len(rejected)} cannot be used{_first_reason(rejected)}. "
            "Make max_len_tokens larger, or correct the data."
        )
    manifest = {
        "kind": "token_store",
        "inputs": inputs,
        "sources": [s.name for s in data.sources],
        "num_read": num_read,
        "num_kept": num_kept,
        "num_overlong": dict(sorted(overlong.items())),
        "num_rejected": len(rejected),
    }
    with written_aside(final, "publish") as aside:
        lines = [json.dumps({"where": w, "reason": r}, ensure_ascii=False) + "\n" for w, r in rejected]
        write_text(aside / REJECTED, "".join(lines))
        publish_store(parts, aside, final, manifest)


def _rejection_message(rejected: Sequence[Rejected]) -> str:
    shown = [f"  {r.where}: {r.reason}" for r in rejected[:10]]
    more = [f"  … and {len(rejected) - 10} more in this block"] if len(rejected) > 10 else []
    way_out = "Correct the data, or set data.bad_records: quarantine to leave such records out and count them."
    return "\n".join([f"source {rejected[0].source}: records that cannot be used:", *shown, *more, way_out])


def _first_reason(rejected: Sequence[Sequence[str]]) -> str:
    return f" (the first: {rejected[0][0]}: {rejected[0][1]})" if rejected else ""
