"""The reference of the config, docs/CONFIG.md: every field with its type, its default, what it affects and its text."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from sft.config_effects import EFFECTS, affects
from sft.config_names import alternatives, former_names, is_section
from sft.job_config import JobFile

_HEAD = """\
<!-- Generated from the fields in the code by `make docs`. -->
# The config

A config is one YAML file (1.2) for a whole job. Every command with a `CONFIG` takes overrides, such as
`train.packs_per_step=16` or `stages.broad.optimizer.lr=1e-5`; items of a list go by their `name` or number. All
mistakes are reported at once, each with its line and a way out.

An editor that knows JSON schemas helps while you write, if the file begins with this line. `sft config-schema` prints
the schema; the configs in [configs](../configs) have it beside them.

    # yaml-language-server: $schema=schema.json

Contents: [What a field affects](#what-a-field-affects) · [When a run goes on](#when-a-run-goes-on) · """


_MORE_ON_RESUME = """\
The run folder may be moved, and named with `run.dir`. The path of a source and how it is read may change if its content
and the examples made from it stay the same. A stage that has not begun may change as a whole. The last one that has
begun may get a larger budget, with another learning rate for what is added. Other changes are refused with the lines
that differ. A field that is missing in the record of an older version counts as what that version did."""


class _Part(NamedTuple):
    """A section, where it stands in the config: `data.sources[]`, or `evaluate.tasks{}` in a mapping."""

    path: str
    section: type[BaseModel]


def config_reference() -> str:
    """The text of the page."""
    parts = _parts_once()
    top = [f"[{part.path}](#{_anchor(part.path)})" for part in parts if re.fullmatch(r"\w+(\[\])?", part.path)]
    blocks = [_HEAD + " · ".join(top), *_effects(), *_resume(parts)]
    for part in parts:
        level = "##" if part.path.count(".") == 0 else "###"
        blocks += [f"{level} {part.path}", _prose(part.section.__doc__), _table(part, parts)]
    return "\n\n".join(blocks) + "\n"


def _parts_once() -> list[_Part]:
    """All sections; one that is in several places is described at the first that is not a mapping, if there is one.

    One that may be given alone or in a list is described once.
    """
    every = list(_parts(JobFile, ""))
    found = [
        part for part in every if part._replace(path=part.path.removesuffix("[]")) not in every[: every.index(part)]
    ]
    elsewhere = {part.section for part in found if not part.path.endswith("{}")}
    return [part for part in found if not part.path.endswith("{}") or part.section not in elsewhere]


def _parts(section: type[BaseModel], path: str) -> Iterator[_Part]:
    """All sections in a section, those that are in several places several times."""
    for name, field in section.model_fields.items():
        for kind in alternatives(field.annotation):
            inner, mark = {tuple: (0, "[]"), dict: (1, "{}")}.get(get_origin(kind), (None, ""))
            inner = kind if inner is None else get_args(kind)[inner]
            if is_section(inner):
                here = f"{path}{field.alias or name}{mark}"
                yield _Part(here, inner)
                yield from _parts(inner, f"{here}.")


def _effects() -> list[str]:
    rows = [f"| {effect} | {meaning.text} | {meaning.on_resume} |" for effect, meaning in EFFECTS.items()]
    table = ["| affects | that is | may change when a run goes on |", "|---|---|---|", *rows]
    text = "A field names the first thing that it affects; what is made from that changes with it."
    return ["## What a field affects", text, "\n".join(table)]


def _resume(parts: Sequence[_Part]) -> list[str]:
    """Which fields may change when a run goes on."""
    lines, whole = [], []
    for part in parts:
        marks = {field.alias or name: affects(field) for name, field in part.section.model_fields.items()}
        free = [key for key, mark in marks.items() if mark and mark.may_change]
        if len(free) == len(marks):
            whole.append(f"`{part.path}`")
        elif free:
            lines.append(f"- of `{part.path}`: {', '.join(f'`{key}`' for key in free)}")
    return [
        "## When a run goes on",
        "The same command goes on with a run. How it is done may change, what it computes may not. These may change:",
        "\n".join([f"- all of {', '.join(whole)}", *lines]),
        _MORE_ON_RESUME,
    ]


def _table(part: _Part, parts: Sequence[_Part]) -> str:
    rows = ["| field | type | default | affects | what it is |", "|---|---|---|---|---|"]
    for name, field in part.section.model_fields.items():
        mark = affects(field)
        was = "".join(f" Was `{former}`." for former in former_names(field))
        told = f"{_prose(field.description)}{was}".replace("|", "\\|")
        cells = (f"`{field.alias or name}`", _type(field, parts), _default(field), mark.first if mark else "", told)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _type(field: FieldInfo, parts: Sequence[_Part]) -> str:
    schema = TypeAdapter(field.rebuild_annotation()).json_schema()
    return _words(schema, {part.section.__name__: part.path for part in reversed(parts)})


def _words(schema: dict[str, Any], places: dict[str, str]) -> str:
    """A type in words. `places`: class name of a section → where the page describes it."""
    if "$ref" in schema or "properties" in schema:
        path = places[schema["$ref"].rpartition("/")[2] if "$ref" in schema else schema["title"]]
        return f"[section](#{_anchor(path)})"
    options = [option for option in schema.get("anyOf", schema.get("oneOf", ())) if option.get("type") != "null"]
    if options:
        return " or ".join(_words(option, places) for option in options)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return f"[{', '.join(_words(item, places) for item in schema['prefixItems'])}]"
        case "array":
            return f"list of {_words(schema['items'], places)}"
        case "object" if isinstance(values := schema.get("additionalProperties"), dict):
            return f"mapping to {_words(values, places)}"
        case "string" if schema.get("format") == "path":
            return "path"
        case "string" if "pattern" in schema and "maxLength" in schema:
            return "name"
        case kind:
            word = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
            limits = [f" {sign} {schema[key]:g}" for key, sign in _LIMITS.items() if key in schema]
            return f"{word.get(str(kind), 'mapping')}{','.join(limits)}"


_LIMITS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    if field.default_factory_takes_validated_data:
        return "depends"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) and value else json.dumps(value, default=str)}`"


def _prose(text: str | None) -> str:
    return " ".join((text or "").split())


def _anchor(path: str) -> str:
    """The link to the heading of a section."""
    return re.sub(r"[^\w-]", "", path.lower())
