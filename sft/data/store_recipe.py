"""What a token store is made from: its sources with explicit formats, and the fingerprint of everything that its
content depends on, and of nothing else. The run folder, batch size and world size do not change it.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

from sft.approval.gate import pass_gate
from sft.atomic_files import fingerprint
from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.config_effects import store_inputs
from sft.data.block_preparer import BlockPreparer
from sft.data.formats.detection import NUM_FIRST, add_columns
from sft.data.formats.formatting import resolve_source
from sft.data.made_records import is_unapproved, refuse_unapproved
from sft.data.reading.sources import content_hash, read_records
from sft.data.token_store import STORE_VERSION, store_path
from sft.errors import UserError
from sft.schema import Record, Rejected

_MOST_FILES = 5


class StoreRecipe(NamedTuple):
    """The path of a config's store, what its name is made of, and the preparer that can make it."""

    path: Path
    inputs: Mapping[str, Any]
    preparer: BlockPreparer
    passed: Mapping[str, Mapping[str, Any]] = {}
    """Of constructed sources, what became of their records (see `sft.approval.gate`)."""

    @classmethod
    def of(cls, data: DataConfig, model: ModelConfig) -> Self:
        """The recipe of the config's store; reads the sources' content to hash it.

        Raises:
            UserError: a source, the tokenizer or the template is unusable, or records are not approved.
        """
        approved = pass_gate(data)
        looked = [_look(source) for source in approved.data.sources]
        unapproved = [source for source, has_some in looked if has_some]
        # With `quarantine`, and after the first records, they are bad records.
        if unapproved and not data.unreviewed and data.bad_records == "stop":
            refuse_unapproved(unapproved)
        resolved = approved.data.model_copy(update={"sources": tuple(source for source, _ in looked)})
        preparer = BlockPreparer(resolved, model)
        inputs = fingerprint_inputs(preparer.data, model, preparer.pipeline.fingerprint)
        return cls(store_path(data.cache_dir, fingerprint(inputs)), inputs, preparer, approved.passed)


def resolve_sources(data: DataConfig) -> DataConfig:
    """The config with every source's format explicit, as its first records show it.

    Raises:
        UserError: a source cannot be read, or its format is unclear.
    """
    return data.model_copy(update={"sources": tuple(_look(source)[0] for source in data.sources)})


def fingerprint_inputs(data: DataConfig, model: ModelConfig, tokenizer_fingerprint: str) -> dict[str, Any]:
    """Everything that the content of the store depends on; its fingerprint is the store's name.

    That is every field of the two sections, except those that `sft.config` marks as changing no example. A source's
    fields count by the hash of the content that they lead to, the model's fields by the tokenizer's fingerprint.
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


def _look(source: SourceConfig) -> tuple[SourceConfig, bool]:
    """The source with its format, and whether made records that nobody has approved are among its first.

    Uses the fields of the first records together: a single record may lack a column or its content, or be bad."""
    fields: dict[str, Any] = {}
    first: Record | None = None
    has_unapproved = False
    unread: list[Rejected] = []
    for record in islice(read_records(source), NUM_FIRST):
        if isinstance(record, Rejected):
            unread.append(record)
        elif record.fields:
            first = first or record
            has_unapproved = has_unapproved or is_unapproved(record.fields, source)
            add_columns(fields, record.fields)
    if first is not None:
        return resolve_source(source, replace(first, fields=fields)), has_unapproved
    if source.format == "auto":
        raise UserError(f"source {source.name}: no record can be read, to tell the format from:{_why_unread(unread)}")
    return source, has_unapproved


def _why_unread(unread: list[Rejected]) -> str:
    """The first reason for each of the first files."""
    if not unread:
        return " all that there are have no fields. Needed: objects with columns."
    firsts = {rejected.where.file: rejected for rejected in reversed(unread)}
    lines = [f"\n  {rejected.where}: {rejected.reason}" for rejected in reversed(firsts.values())]
    way_out = "\nText must be UTF-8: save a file in Latin-1 or Windows-1252 as UTF-8."
    is_encoding = any("invalid UTF-8" in rejected.reason for rejected in unread)
    return "".join(lines[:_MOST_FILES]) + (way_out if is_encoding else "")
