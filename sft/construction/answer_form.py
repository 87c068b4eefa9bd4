"""Reads a teacher's answer in the form that was asked for; anything else is a failure with its reason.

A thought before the answer does not count, nor one fence of Markdown around JSON: many models write them.
"""

import json
from collections.abc import Mapping
from typing import Any

from sft.construction.script import Failed
from sft.endpoint.chat import ChatReply, NoReply
from sft.printable import shortened
from sft.strict_json import read_fenced_json, without_halves
from sft.thoughts import answer_in

_PLAIN = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_REASON_CHARS = 160
_KINDS: Mapping[type, tuple[str, str]] = {
    str: ("string", "a text"),
    bool: ("boolean", "true or false"),
    int: ("integer", "a whole number"),
}


class FormError(ValueError):
    """The answer has another form; the text is the reason."""

    @property
    def failed(self) -> Failed:
        """The end of the script."""
        return Failed(str(self))


def read_text(reply: ChatReply | NoReply) -> str:
    """An answer that is a text, without white space around it.

    Raises:
        FormError: there is none, it is empty, or it was cut.
    """
    if isinstance(reply, NoReply):
        raise FormError(f"no answer: {shortened(reply.reason, _REASON_CHARS)}")
    if not reply.stopped:
        raise FormError("the answer was cut at max_tokens")
    said = answer_in(reply.text)
    if text := said.answer.strip():
        return text
    raise FormError(said.why_empty or "the answer is empty")


def read_json(reply: ChatReply | NoReply) -> Any:
    """The value of an answer that is JSON.

    Raises:
        FormError: it is not.
    """
    text = read_text(reply)
    try:
        return json.loads(without_halves(_PLAIN.encode(read_fenced_json(text))))
    except ValueError:
        raise FormError("the answer is no JSON") from None


def read_object(
    reply: ChatReply | NoReply, form: Mapping[str, type], may_be_empty: tuple[str, ...] = ()
) -> dict[str, Any]:
    """An answer that is a JSON object with these keys; its values by key, texts without white space around them.

    Raises:
        FormError: it is not, or a text is empty that is not in `may_be_empty`.
    """
    content = read_json(reply)
    if not isinstance(content, dict):
        raise FormError("the answer is no JSON object")
    if content.keys() != form.keys():
        raise FormError(f"the answer has other keys than {', '.join(form)}")
    found = {}
    for key, kind in form.items():
        value = content[key]
        if type(value) is not kind:
            raise FormError(f"{key} of the answer is not {_KINDS[kind][1]}")
        found[key] = value.strip() if isinstance(value, str) else value
        if found[key] == "" and key not in may_be_empty:
            raise FormError(f"{key} of the answer is empty")
    return found


def schema_of(form: Mapping[str, type]) -> dict[str, Any]:
    """The form as a JSON schema, for servers that can hold an answer to it."""
    properties = {key: {"type": _KINDS[kind][0]} for key, kind in form.items()}
    return {"type": "object", "properties": properties, "required": list(form), "additionalProperties": False}
