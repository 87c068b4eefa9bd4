"""What a reviewer sees of a record, and the record that an edit makes: its texts by their places in the fields.

    {"messages": [{"role": "user", "content": "Sort: b a"}, …]}  ◀─▶  Text("messages.0.content", "user", "Sort: b a"), …
    {"instruction": "Sort.", "input": "b a", "output": "a b"}    ◀─▶  Text("instruction", "instruction", "Sort."), …

A place names the keys on the way (`place_of`). It holds a text or is shown as JSON, which nobody edits here: calls,
schemas, the passage that is the evidence.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sft.approval.record_set import identity
from sft.errors import RecordError
from sft.schema import JsonObject

_TURNS = ("messages", "conversations")
"""Columns that hold turns."""
_ABOUT = ("id", "task", "tools", "evidence", "provenance", "dropped", "approval")


class Text(NamedTuple):
    """A text of a record."""

    place: str
    who: str
    """Who says it, or the name of the field."""
    text: str
    is_edited_here: bool = True


def texts_of(fields: JsonObject) -> list[Text]:
    """All that is trained of a record, in order."""
    return [*_texts(fields)]


def about(fields: JsonObject) -> dict[str, str]:
    """What stands beside the conversation, as JSON: tools, evidence, provenance; a task that is no name."""
    shown = {name: fields[name] for name in _ABOUT if fields.get(name) and name != "id"}
    return {name: _as_json(value) for name, value in shown.items() if name != "task" or not isinstance(value, str)}


def turn_keys(turn: Any) -> tuple[str, str]:
    """The keys of who speaks, and of what is said."""
    is_sharegpt = isinstance(turn, Mapping) and "from" in turn and "role" not in turn
    return ("from", "value") if is_sharegpt else ("role", "content")


def edited(fields: JsonObject, texts: Mapping[str, str]) -> JsonObject:
    """The record with other texts, under the id of its content.

    Raises:
        RecordError: a place has no text that can be edited.
    """
    known = {text.place for text in _texts(fields) if text.is_edited_here}
    if unknown := sorted(texts.keys() - known):
        raise RecordError(f"there is no text to edit at {', '.join(unknown)}")
    made: dict[str, Any] = copy.deepcopy(dict(fields))
    for place, text in texts.items():
        column, *rest = [part.replace("~1", ".").replace("~0", "~") for part in place.split(".")]
        if rest:
            made[column][int(rest[0])][rest[1]] = text
        else:
            made[column] = text
    if "id" in made:
        made["id"] = identity(made)
    return made


def place_of(*keys: str | int) -> str:
    """Keys joined by points; a key's own points are escaped as in JSON pointers, so no other keys have this place."""
    return ".".join(str(key).replace("~", "~0").replace(".", "~1") for key in keys)


def _texts(fields: JsonObject) -> Iterator[Text]:
    for name, value in fields.items():
        if name in _TURNS and isinstance(value, list):
            for i, turn in enumerate(value):
                yield from _turn((name, i), turn, *turn_keys(turn))
        elif name not in _ABOUT:
            is_text = isinstance(value, str)
            yield Text(place_of(name), name, value if is_text else _as_json(value), is_text)


def _turn(place: tuple[str, int], turn: Any, speaker: str, said: str) -> Iterator[Text]:
    if not isinstance(turn, Mapping):
        yield Text(place_of(*place), "?", _as_json(turn), False)
        return
    who = str(turn.get(speaker, "?"))
    content = turn.get(said)
    if isinstance(content, str):
        yield Text(place_of(*place, said), who, content)
    elif content is not None:
        yield Text(place_of(*place, said), who, _as_json(content), False)
    for name, value in turn.items():
        if name not in (speaker, said) and value:
            is_text = isinstance(value, str)
            yield Text(place_of(*place, name), f"{who}: {name}", value if is_text else _as_json(value), is_text)


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
