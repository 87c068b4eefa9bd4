"""Drops answers that should be JSON and are not, or do not fit their JSON schema."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator

from sft.construction.filters.draft_parts import DraftParts, answer_of, has_calls
from sft.construction.filters.filter import Filter, Look, Surroundings
from sft.construction.value_schema import UnusableSchema, fits, schema_validator
from sft.scoring.json_equal import NO_JSON
from sft.strict_json import read_fenced_json

_BEGINS = re.compile(r"\s*(?:```json\b|\{\s*[\"}]|\[\s*[\[{\"\]])", re.IGNORECASE)


class JsonAnswer(Filter):
    """Whether an answer is JSON, in a code fence or not, with no text around it.

    Judged are answers of `tasks`, if these are given; else those whose draft has a schema as evidence (`schema`), and
    those that begin as JSON does.
    """

    name: ClassVar[str] = "json"
    word: ClassVar[str] = "parses"

    schemas: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Task → the JSON schema (draft 2020-12) that its answers fit. A draft's own comes first."""

    @field_validator("schemas")
    @classmethod
    def _are_schemas(cls, schemas: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for task, schema in schemas.items():
            try:
                schema_validator(schema)
            except UnusableSchema as error:
                raise ValueError(f"{task}: it is no JSON schema: {error}") from None
        return schemas

    def look(self, around: Surroundings) -> Look:
        """By its settings alone."""
        return _JsonLook(self)


class _JsonLook(Look):
    def __init__(self, given: JsonAnswer) -> None:
        self._given = given

    def see(self, parts: DraftParts) -> str | None:
        """Parses, then fits."""
        draft = parts.draft
        if has_calls(draft):
            return None
        answer, own = answer_of(draft), draft.evidence.get("schema")
        schema = own if isinstance(own, Mapping) else self._given.schemas.get(draft.task)
        if schema is None and not self._given.tasks and not _BEGINS.match(answer):
            return None
        value = parsed(answer)
        if value is NO_JSON:
            return "the answer is no JSON"
        if schema is None:
            return None
        try:
            return None if fits(value, schema) else "the answer does not fit its JSON schema"
        except UnusableSchema:
            return "its JSON schema cannot be used"


def parsed(answer: str) -> Any:
    """The value of an answer that is JSON, or `NO_JSON`. NaN and Infinity are no JSON."""
    try:
        return read_fenced_json(answer)
    except ValueError:
        return NO_JSON
