"""A message in the form that a chat template reads, as far as templates differ in it.

    thoughts     in a field of their own, whose name varies; in parts of the content; else as <think> in the content
    content      of a turn that only calls tools: null, or empty text
    arguments    of a call: an object, or the text of one

The form that a template is written for is found by rendering probes, not by reading it.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sft.errors import RecordError
from sft.schema import THOUGHT_END, THOUGHT_FIELDS, THOUGHT_START, JsonObject, Message, ToolCall

RenderTurns = Callable[[Sequence[JsonObject], Sequence[JsonObject]], str]
"""Turns and tools, as the template reads them → its text. It raises `RecordError` where the template refuses them."""


@dataclass(frozen=True, slots=True)
class TurnForm:
    """The form of messages that one chat template is written for."""

    thoughts: Literal["field", "parts", "text", "opened_text", "none"] = "text"
    """`opened_text`: the template itself writes the <think> that opens a thought; `none`: it writes an empty think
    block of its own, and has no form for a thought."""
    thought_field: str = THOUGHT_FIELDS[0]
    """For `field`: its name."""
    null_content: bool = False
    """Whether a turn that only calls tools has null as its content."""
    text_arguments: bool = False
    """Whether the arguments of a call are text that holds JSON."""


def template_turn(message: Message, form: TurnForm) -> dict[str, Any]:
    """The message in the form that the template reads."""
    only_calls = message.tool_calls and not message.content
    turn: dict[str, Any] = {"role": message.role, "content": None if only_calls and form.null_content else ""}
    if message.content:
        turn["content"] = message.content
    if message.thought and form.thoughts == "field":
        turn[form.thought_field] = message.thought
    elif message.thought and form.thoughts == "parts":
        parts = [{"type": "thinking", "thinking": message.thought}, {"type": "text", "text": message.content}]
        turn["content"] = parts if message.content else parts[:1]
    elif message.thought:
        if form.thoughts == "none":
            raise RecordError(
                "the chat template writes an empty think block before an answer, and has no place for its thought. "
                "Choose another with model.chat_template, or leave the thoughts out of the data."
            )
        text = message.full_text
        turn["content"] = text if form.thoughts == "text" else text.removeprefix(THOUGHT_START)
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": _arguments(call.arguments, form)}}
            | ({} if call.call_id is None else {"id": call.call_id})
            for call in message.tool_calls
        ]
    if message.call_id is not None:
        turn["tool_call_id"] = message.call_id
    return turn


def derive_turn_form(render: RenderTurns) -> TurnForm:
    """Find out which form the template is written for."""

    def text_of(answer: JsonObject, *behind: JsonObject) -> str | None:
        try:
            return render([{"role": "user", "content": "probequestion"}, answer, *behind], ())
        except RecordError:
            return None

    null_content, text_arguments = _call_form(text_of)
    return replace(_thought_form(text_of), null_content=null_content, text_arguments=text_arguments)


def _arguments(arguments: JsonObject, form: TurnForm) -> Any:
    if not form.text_arguments:
        return dict(arguments)
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise RecordError(f"the arguments of a call cannot be written as JSON: {error}") from None


def _thought_form(text_of: Callable[..., str | None]) -> TurnForm:
    """The first field that the template writes; some templates write it only in turns that call tools."""
    call = ToolCall("probecall", {"probekey": "probevalue"}, "000000001")
    plain = Message("assistant", "probeanswer", thought="probethought")
    for probe in (plain, replace(plain, content="", tool_calls=(call,))):
        for form in (*[TurnForm("field", field) for field in THOUGHT_FIELDS], TurnForm("parts")):
            text = text_of(template_turn(probe, form))
            # A template that prints any content as it is would show the parts as an object.
            if text is not None and text.count("probethought") == 1 and not re.search("[\"']thinking[\"']", text):
                return form
    for form in (TurnForm("text"), TurnForm("opened_text")):
        answer = (text_of(template_turn(plain, form)) or "").partition("probequestion")[2]
        if answer.count(THOUGHT_START.strip()) == answer.count(THOUGHT_END.strip()) == 1 and "probethought" in answer:
            return form
    bare = (text_of(template_turn(replace(plain, thought=""), TurnForm())) or "").partition("probequestion")[2]
    return TurnForm("none" if THOUGHT_END.strip() in bare else "text")


def _call_form(text_of: Callable[..., str | None]) -> tuple[bool, bool]:
    """Whether a call needs null content, and its arguments as text: the first of the four forms that comes out well."""
    # An id that every template accepts, and a result behind the call, which some templates require.
    result = {"role": "tool", "content": "proberesult", "tool_call_id": "000000001", "name": "probecall"}
    for text_arguments in (False, True):
        for content in (None, ""):
            arguments: Any = {"probekey": "probevalue"}
            function = {"name": "probecall", "arguments": json.dumps(arguments) if text_arguments else arguments}
            call = {"type": "function", "id": "000000001", "function": function}
            turn = {"role": "assistant", "content": content, "tool_calls": [call]}
            text = text_of(turn, result, {"role": "assistant", "content": "probeanswer"})
            if text is not None and _is_well_written(text):
                return content is None, text_arguments
    return False, False


def _is_well_written(text: str) -> bool:
    if "None" in text or "null" in text or "probecall" not in text or "probevalue" not in text:
        return False
    # Python's notation of an object, and JSON inside a JSON text.
    return "{'probekey'" not in text and '\\"probekey' not in text
