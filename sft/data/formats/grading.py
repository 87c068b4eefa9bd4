"""What a record says about how an answer to it is measured, besides its own answer: other right answers, the answers to
choose from, tests for code, what people think of its own answer, and the examples that a task file shows.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sft.config import SourceConfig
from sft.data.formats.columns import column_of
from sft.data.formats.text_fields import kind_of
from sft.errors import RecordError
from sft.schema import JsonObject, Message

_REFERENCES, _OPTIONS, _TESTS = ("references",), ("options", "choices", "answer_choices"), ("tests", "test_list")
_ENTRY_POINT, _ITS_TESTS = ("entry_point",), "test"
_SETUP = ("setup_code", "test_setup_code", "test_imports")
"""The names of the columns where the config names none; the first that a record has counts."""
_SHOWN = "Positive Examples"
_CHECK = re.compile(r"^def check\(", re.MULTILINE)
"""HumanEval's tests are a function that is still to be called (Chen et al. 2021, arXiv 2107.03374)."""


class Grading(NamedTuple):
    """What a record holds to measure an answer by."""

    references: tuple[str, ...] = ()
    """Other right answers."""
    options: tuple[str, ...] = ()
    """The answers to choose from."""
    tests: tuple[str, ...] = ()
    """Python code that raises if an answer, which is code before it, is wrong."""
    setup_code: str = ""
    """Python code that the tests need: it runs between the answer and them."""
    mark: str | float | None = None
    """What people think of the record's own answer: a label or a number."""
    rejected: str = ""
    """An answer that people like less than the record's own."""
    shown: tuple[tuple[Message, Message], ...] = ()
    """Examples that the task itself shows: a prompt and its answer each."""


def read_grading(fields: JsonObject, source: SourceConfig) -> Grading:
    """What the record holds; a column that is missing or null holds nothing.

    `source` was returned by `resolve_source`, `fields` are those of a record from `expand_record`.

    Raises:
        RecordError: a column holds something else than it should.
    """
    named = source.grading
    found = Grading(
        references=_texts(fields, named.references, _REFERENCES),
        options=_texts(fields, named.options, _OPTIONS),
        tests=_tests(fields, source),
        setup_code="\n".join(_texts(fields, named.setup_code, _SETUP, may_be_blank=True)),
        mark=_mark(fields, named.marks),
        rejected=_rejected(fields, named.rejected),
    )
    if len(set(found.options)) < len(found.options):
        raise RecordError("two of its options are the same text")
    if source.format != "super_natural_instructions":
        return found
    instance = fields[column_of(source.columns, "Instances")][0]
    outputs = instance.get("output") if isinstance(instance, Mapping) else None
    others = tuple(text for text in outputs[1:] if isinstance(text, str)) if isinstance(outputs, list) else ()
    return found._replace(references=(*others, *found.references), shown=_shown(fields, source))


def _texts(
    fields: JsonObject, named: str | None, usual: Sequence[str], *, may_be_blank: bool = False
) -> tuple[str, ...]:
    """The texts of a column; of one that the config does not name, only if it holds such."""
    column = named or next((name for name in usual if name in fields), None)
    value = None if column is None else fields.get(column)
    if may_be_blank and value in ("", [], ()):
        return ()
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    is_right = value is None or (
        texts and all(isinstance(text, str) and (may_be_blank or text.strip()) for text in texts)
    )
    if is_right:
        return texts
    if named is None:
        return ()  # a column of another use
    raise RecordError(f"the field {column!r} holds {kind_of(value)}, not a text or a list of texts")


def _tests(fields: JsonObject, source: SourceConfig) -> tuple[str, ...]:
    """The tests, and behind tests of HumanEval's form the call of their `check`."""
    named = source.grading
    entry_point = _texts(fields, named.entry_point, _ENTRY_POINT)
    tests = _texts(fields, named.tests, (*_TESTS, _ITS_TESTS) if entry_point else _TESTS)
    if not entry_point or not any(map(_CHECK.search, tests)):
        return tests
    if len(entry_point) > 1 or not entry_point[0].strip().isidentifier():
        if named.entry_point is None:
            return tests  # a column of another use
        raise RecordError(f"the field {named.entry_point!r} does not hold the name of one function")
    return (*tests, f"check({entry_point[0].strip()})")


def _mark(fields: JsonObject, named: str | None) -> str | float | None:
    value = fields.get(named) if named else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    raise RecordError(f"the field {named!r} holds {kind_of(value)}, not a label or a number")


def _rejected(fields: JsonObject, named: str | None) -> str:
    """A text, or the last turn of a conversation, as sets of preferences have it."""
    value = fields.get(named) if named else None
    if isinstance(value, list) and value and isinstance(value[-1], Mapping):
        value = value[-1].get("content")
    if value is None or isinstance(value, str):
        return value or ""
    raise RecordError(f"the field {named!r} holds {kind_of(value)}, not a text or a conversation")


def _shown(fields: JsonObject, source: SourceConfig) -> tuple[tuple[Message, Message], ...]:
    definition: Any = fields.get(column_of(source.columns, "Definition"))
    definition = definition[0] if isinstance(definition, list) and definition else definition
    shown = []
    for example in fields.get(_SHOWN) or ():
        if not isinstance(example, Mapping) or not isinstance(definition, str):
            continue
        output = example.get("output")
        output = output[0] if isinstance(output, list) and output else output
        given = example.get("input") or ""
        if isinstance(output, str) and output.strip() and isinstance(given, str):
            prompt = f"{definition}\n\n{given}" if given.strip() else definition
            shown.append((Message("user", prompt), Message("assistant", output)))
    return tuple(shown)
