"""The format of a source and the meaning of its columns: given in the config, or found from the first records.

A format fits a record when its required columns are there, by their own names or by an alias in any case, and a list of
turns has the format's keys. It is chosen when it is the only one that fits. A format with one question and one answer
must also leave out no column that may be a part of them: to drop context silently would make wrong data. In every other
case an error asks, and shows the lines that can be written in the config.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from sft.config import Format, SourceConfig, TaskColumn
from sft.data.formats.columns import COLUMNS, SINGLE_TURN, SINGLE_TURN_NAMES, column_of
from sft.data.formats.tool_calls import parse_json
from sft.errors import RecordError, UserError
from sft.schema import JsonObject, Record

NUM_FIRST = 1000
"""The number of records that show which columns a source has."""
_NOTHING: tuple[Any, ...] = (None, "", [], {})
"""Values that say nothing about a column."""


class Fit(NamedTuple):
    """A way to read a record."""

    form: Format
    columns: dict[str, str]
    left_out: tuple[str, ...] = ()
    """Columns that may be a part of the prompt or the answer, and are not read."""


def add_columns(known: dict[str, Any], fields: JsonObject) -> None:
    """Add what a further one of the first records says of the columns: one alone may lack a column or its content."""
    known |= {name: value for name, value in fields.items() if known.get(name) in _NOTHING}


def resolve_source(source: SourceConfig, record: Record) -> SourceConfig:
    """The source with an explicit format, and in `columns` only the names that differ here.

    The result is the same whether format and columns were given or found. `record` has the fields of the first records
    together, and the location of the first.

    Raises:
        UserError: several formats fit the record or none does, or a needed column is missing.
    """
    form: Format
    if source.format == "auto":
        form, columns, _ = _find_format(source, record)
    else:
        form, columns = source.format, source.columns
    resolved = source.model_copy(update={"format": form, "columns": columns})
    check_columns(resolved, record)
    renamed = {name: columns[name] for name in COLUMNS[form] if columns.get(name, name) != name}
    return resolved.model_copy(update={"columns": renamed})


def describe_source(source: SourceConfig) -> str:
    """The format and the names that differ, such as `format instruction (input ← context)`."""
    renamed = ", ".join(f"{name} ← {column}" for name, column in source.columns.items())
    return f"format {source.format} ({renamed})" if renamed else f"format {source.format}"


def check_columns(source: SourceConfig, record: Record) -> None:
    """Compare the columns of a source whose format is known with the fields of its first records.

    Raises:
        UserError: a column is missing; the message names those that are there.
    """
    assert source.format != "auto", "the format is found before its columns are checked"
    known = COLUMNS[source.format]
    problems = []
    for name in source.columns:
        if name not in known:
            problems.append(f"columns.{name}: the format {source.format} has no {name!r}, only {', '.join(known)}")
    needed = {
        name: column_of(source.columns, name) for name, c in known.items() if c.required or name in source.columns
    }
    readers: dict[str, list[str]] = {}
    for name, column in needed.items():
        readers.setdefault(column, []).append(name)
    problems += [f"the column {c!r} is read as {' and as '.join(names)}" for c, names in readers.items() if names[1:]]
    if isinstance(source.task, TaskColumn):
        needed["task"] = source.task.column
    for name, column in needed.items():
        if column not in record.fields:
            problems.append(f"there is no column {column!r} (for {name})")
    if source.format == "tokens":
        marks = [column_of(source.columns, name) for name in ("labels", "loss_mask")]
        if not any(column in record.fields for column in marks):
            problems.append(f"there is neither a column {marks[0]!r} nor {marks[1]!r}, to say which tokens are learned")
    if problems:
        there = ", ".join(record.fields)
        aliased = next(_fits(source.format, {}, record.fields), Fit(source.format, {}))
        meant = _renamed(aliased) or {next(iter(known)): next(iter(record.fields), "…")}
        way_out = f"The columns there: {there}. Map them, such as columns: {_flow(meant)}."
        raise UserError(f"source {source.name}: {record.where}: {'; '.join(problems)}. {way_out}")


def _find_format(source: SourceConfig, record: Record) -> Fit:
    fields = record.fields
    fits = [fit for form in COLUMNS for fit in _fits(form, source.columns, fields)]
    rivals = [fit for fit in fits if not _is_part_of_another(fit, fits)]
    if len(rivals) == 1 and not rivals[0].left_out:
        return rivals[0]
    place, there = f"source {source.name}: {record.where}", ", ".join(fields)
    if rivals:
        lines = "".join(f"\n  {_line(fit)}" for fit in rivals)
        raise UserError(
            f"{place}: it is unclear how the columns {there} are meant. Write it into the config, such as:{lines}"
        )
    for name in source.columns:
        if not any(name in known for known in COLUMNS.values()):
            raise UserError(f"{place}: columns.{name}: no format has {name!r}. {_needed_columns()}")
    texts = [column for column, value in fields.items() if isinstance(value, str)]
    prompt, completion = (*texts, "…", "…")[:2]
    example = Fit("prompt_completion", {"prompt": prompt, "completion": completion})
    raise UserError(
        f"{place}: the columns {there} fit no format. {_needed_columns()}\n"
        f"Write the format and what its columns are called here, such as\n  {_line(example)}"
    )


def _fits(form: Format, given: Mapping[str, str], fields: JsonObject) -> Iterator[Fit]:
    """Every way to read the fields in the format, with the columns that are given."""
    known = COLUMNS[form]
    if not given.keys() <= known.keys():
        return
    choices: list[list[str | None]] = []
    for name, column in known.items():
        # If two columns differ only in case, either may be meant: an error asks.
        found: list[str | None] = [
            there
            for spelled in (name, *column.aliases)
            for there in fields
            if there.casefold() == spelled.casefold() and there not in given.values()
        ]
        if name in given:
            found = [given[name]]
        if not found and column.required:
            return
        choices.append(found or [None])
    settled = {spelled for name in given for spelled in (name, *known[name].aliases)}
    if all(name in given for name, column in known.items() if column.required):
        settled |= SINGLE_TURN_NAMES
    for combination in product(*choices):
        columns = {name: chosen for name, chosen in zip(known, combination, strict=True) if chosen is not None}
        if _holds_the_format(form, columns, fields):
            read = {chosen.casefold() for chosen in columns.values()}
            meant = SINGLE_TURN_NAMES - settled - read if form in SINGLE_TURN else ()
            yield Fit(form, columns, tuple(column for column in fields if column.casefold() in meant))


def _holds_the_format(form: Format, columns: Mapping[str, str], fields: JsonObject) -> bool:
    """Checks beyond the names: the keys of turns, and that a row of tokens marks which ones are learned."""
    if form == "tokens":
        return "labels" in columns or "loss_mask" in columns
    if form not in ("messages", "sharegpt"):
        return True
    column, key = (columns["messages"], "role") if form == "messages" else (columns["conversations"], "from")
    if column not in fields:
        return True  # given in the config; a later check reports that it is missing
    turns = fields[column]
    if isinstance(turns, str):
        try:
            turns = parse_json(turns, column)
        except RecordError:
            return False
    if not isinstance(turns, list):
        return False
    return not turns or (isinstance(turns[0], Mapping) and key in turns[0])


def _is_part_of_another(fit: Fit, fits: list[Fit]) -> bool:
    """Whether it leaves out columns that another fit, which leaves out nothing, reads together with all of its own."""
    own = set(fit.columns.values())
    return bool(fit.left_out) and any(
        not other.left_out and own < set(other.columns.values()) for other in fits if other is not fit
    )


def _renamed(fit: Fit) -> dict[str, str]:
    return {name: column for name, column in fit.columns.items() if name != column}


def _line(fit: Fit) -> str:
    columns = f", columns: {_flow(_renamed(fit))}" if _renamed(fit) else ""
    left_out = f"   (leaves out {', '.join(fit.left_out)})" if fit.left_out else ""
    return f"format: {fit.form}{columns}{left_out}"


def _flow(columns: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {column}" for name, column in columns.items()) + "}"


def _needed_columns() -> str:
    needed = (
        f"{form} ({', '.join(name for name, column in known.items() if column.required)})"
        for form, known in COLUMNS.items()
    )
    return f"The formats and what they need: {', '.join(needed)}."
