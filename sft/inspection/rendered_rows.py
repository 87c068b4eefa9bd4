"""From a store back to its sources: each record that has rows is read, formatted and rendered again, in row order.

There is exactly one item for each row whose record was found: its rendering, None where the record came as token ids,
or a `RecordError` where the record does not make the rows that the store has of it. Records without rows are skipped;
the check of the counts accounts for them.
"""

from collections.abc import Iterator
from itertools import groupby

from sft.config import DataConfig
from sft.data.block_preparer import BlockPreparer
from sft.data.formats.formatting import expand_record
from sft.data.reading.sources import read_records
from sft.data.record_pipeline import RecordPipeline, Rendered
from sft.data.rendering.renderer import Rendering
from sft.data.token_store import TokenStore
from sft.errors import RecordError
from sft.schema import Example, Record, TokenizedRecord

RenderedRow = Rendering | RecordError | None

_READ_AT_ONCE = 1 << 16


def render_rows(store: TokenStore, preparer: BlockPreparer) -> Iterator[RenderedRow]:
    """The rendering of each row of the store; fewer items where there are no more records.

    Raises:
        UserError: a source is unusable.
    """
    data, pipeline = preparer.data, preparer.pipeline
    stored = _stored_records(store)
    key, num_rows = next(stored, (None, 0))
    for source_id, source in enumerate(data.sources):
        readable = (record for record in read_records(source) if isinstance(record, Record))
        for instance in (instance for record in readable for instance in expand_record(record, source)):
            own_key = (source_id, instance.index, instance.where.instance or 0)
            while key is not None and key < own_key:
                yield from [RecordError("its record is not in the source, or not in this order")] * num_rows
                key, num_rows = next(stored, (None, 0))
            if key == own_key:
                yield from _render_again(instance, source_id, num_rows, data, pipeline)
                key, num_rows = next(stored, (None, 0))


def _stored_records(store: TokenStore) -> Iterator[tuple[tuple[int, int, int] | None, int]]:
    """Source, number and instance of each record that has rows, in order, and how many it has."""
    columns = (store.source_ids, store.record_ids, store.instances)
    keys = (
        key
        for start in range(0, len(store), _READ_AT_ONCE)
        for key in zip(*(column[start : start + _READ_AT_ONCE].tolist() for column in columns), strict=True)
    )
    for key, rows in groupby(keys):
        yield key, sum(1 for _ in rows)


def _render_again(
    record: Record, source_id: int, num_rows: int, data: DataConfig, pipeline: RecordPipeline
) -> list[RenderedRow]:
    try:
        rendered = pipeline.render(pipeline.format(record, data.sources[source_id]))
        if isinstance(rendered.formatted.content, TokenizedRecord):
            return [None] * num_rows
        renderings = _short_enough(rendered, num_rows, data, pipeline)
    except RecordError as error:
        return [RecordError(f"its record cannot be used: {error}")] * num_rows
    if len(renderings) != num_rows:
        return [RecordError(f"its record makes {len(renderings)} rows, the store has {num_rows} of it")] * num_rows
    return list(renderings)


def _short_enough(rendered: Rendered, num_rows: int, data: DataConfig, pipeline: RecordPipeline) -> list[Rendering]:
    """The renderings that are not too long, after shortening the record if the config says so."""
    renderings = rendered.renderings
    if data.overlong != "truncate":
        # Nothing was changed, so if the store has as many rows as there are renderings, these are the ones.
        return list(renderings) if len(renderings) == num_rows else _within_length(renderings, data, pipeline)
    if len(_within_length(renderings, data, pipeline)) < len(renderings):
        renderings = (pipeline.shorten(rendered) or rendered).renderings
    return _within_length(renderings, data, pipeline)


def _within_length(renderings: tuple[Rendering, ...], data: DataConfig, pipeline: RecordPipeline) -> list[Rendering]:
    examples = pipeline.tokenizer.tokenize(renderings)
    return [
        rendering
        for rendering, example in zip(renderings, examples, strict=True)
        if isinstance(example, Example) and len(example.input_ids) <= data.max_len_tokens
    ]
