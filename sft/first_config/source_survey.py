"""What a source is like, from its beginning: format and columns, tasks, lengths in tokens, unusable records.

It uses exactly the steps of the preparation, so its results hold there too.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.data.formats.columns import COLUMNS, column_of
from sft.data.reading.sources import decode_block, read_blocks
from sft.data.record_pipeline import RecordPipeline
from sft.data.store_recipe import resolve_sources
from sft.errors import UserError
from sft.schema import Record, Rejected

NUM_LOOKED = 1000
"""The number of records that are read to survey a source."""
_TASK_NAMES = ("task", "task_name", "task_type", "category", "type", "subject", "topic", "domain", "skill")
_MAX_TASKS = 60
_MAX_TASK_CHARS = 60
_NO_LIMIT = 1 << 40


class Survey(NamedTuple):
    """What the first records of a source show."""

    source: SourceConfig
    """With format and columns as they were found."""
    num_looked: int
    num_records: int
    """Of the whole source; an estimate if not all of it was read."""
    reasons: tuple[str, ...]
    """For each record that cannot be used, the reason."""
    lengths: tuple[int, ...]
    """Tokens of each example, prompt and answer; empty without a tokenizer."""
    columns: tuple[str, ...]
    """Of all records that were read."""
    task_columns: Mapping[str, Mapping[str, int]]
    """Columns that may name the task, the likeliest first → value → records."""

    def length_at(self, share: float) -> int:
        """This share of the examples is at most so long."""
        return sorted(self.lengths)[math.ceil(share * len(self.lengths)) - 1]

    @property
    def mean_length(self) -> float:
        """The mean length of the examples, in tokens."""
        return sum(self.lengths) / len(self.lengths)

    def num_tokens(self, most: int) -> float:
        """Estimated tokens of the whole source, in examples of at most `most` tokens; 0 where no length is known."""
        return sum(length for length in self.lengths if length <= most) * self.num_records / max(1, self.num_looked)


def survey_source(source: SourceConfig, model: ModelConfig | None, num_records: int = NUM_LOOKED) -> Survey:
    """Survey the first records of a source.

    Args:
        source: the source; given format and columns are used.
        model: provides tokenizer and template; None where there is none here.
        num_records: how many records to read.

    Raises:
        UserError: it cannot be read, its format is unclear, or the tokenizer is unusable.
    """
    data = DataConfig(
        sources=(source,), max_len_tokens=_NO_LIMIT, bad_records="quarantine", duplicates="keep", turns="repair"
    )
    data = resolve_sources(data)
    (resolved,) = data.sources
    records, share = _first_records(resolved, num_records)
    lengths: list[int] = []
    reasons = [record.reason for record in records if isinstance(record, Rejected)]
    if model is not None:
        kept, counts = RecordPipeline(data, model).prepare(records, resolved, 0)
        lengths = [len(example.input_ids) for record in kept for example in record.examples]
        reasons = [rejected.reason for rejected in counts.rejected]
    read = [record.fields for record in records if isinstance(record, Record)]
    return Survey(
        resolved,
        len(records),
        round(len(records) / share) if share else len(records),
        tuple(reasons),
        tuple(lengths),
        tuple(dict.fromkeys(name for fields in read for name in fields)),
        _find_task_columns(read, resolved),
    )


def _first_records(source: SourceConfig, most: int) -> tuple[list[Record | Rejected], float]:
    """The first records, and their share of the source."""
    found: list[Record | Rejected] = []
    before = share = 0.0
    for block in read_blocks(source):
        content = list(decode_block(block))
        taken = content[: most - len(found)]
        found += taken
        share = before + (block.done - before) * (len(taken) / len(content) if content else 1.0)
        before = block.done
        if len(found) >= most:
            break
    return found, share


def _find_task_columns(records: Sequence[Mapping[str, Any]], source: SourceConfig) -> dict[str, dict[str, int]]:
    """Columns that the format does not read, with few short values that repeat."""
    assert source.format != "auto"
    read = {column_of(source.columns, name) for name in COLUMNS[source.format]}
    found: dict[str, dict[str, int]] = {}
    for column in dict.fromkeys(name for record in records for name in record if name not in read):
        values = Counter(_as_tasks(record.get(column) for record in records))
        is_whole = sum(values.values()) == len(records)
        if is_whole and 2 <= len(values) <= min(_MAX_TASKS, len(records) // 4):
            found[column] = dict(values.most_common())
    ranks = {name: rank for rank, name in enumerate(_TASK_NAMES)}
    return dict(sorted(found.items(), key=lambda item: ranks.get(_spelled(item[0]), len(ranks))))


def _as_tasks(values: Iterator[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str) and value.strip() and len(value) <= _MAX_TASK_CHARS and "\n" not in value:
            yield value


def _spelled(column: str) -> str:
    return column.lower().strip("_")


def likely_task(survey: Survey) -> str | None:
    """The column that most likely names the task, by its name."""
    return next((column for column in islice(survey.task_columns, 1) if _spelled(column) in _TASK_NAMES), None)


def mean_example_tokens(sources: Sequence[SourceConfig], model: ModelConfig) -> float | None:
    """The mean length of the sources' examples; None if they or the tokenizer are not here."""
    try:
        surveys = [survey_source(source, model) for source in sources]
    except UserError:
        return None
    total = sum(survey.num_records for survey in surveys if survey.lengths)
    weighted = sum(survey.mean_length * survey.num_records for survey in surveys if survey.lengths)
    return weighted / total if total else None
