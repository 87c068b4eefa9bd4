"""Whether a template looks at the words of a conversation, so that what it writes around them depends on them.

    source      the texts that it searches for in words: "</think>" in a content, the first character of one
    rendering   whether it writes the same around short and long words, numbers, lists, capitals, several lines

A conversation whose words a template may look at is not like a probe of its shape (`landmarks`).
"""

import json
import re
from dataclasses import replace

from jinja2 import Environment, nodes

from sft.data.rendering.adaptation import RenderTemplate
from sft.data.rendering.chat_template import without_generation_marks
from sft.data.rendering.turn_bounds import MARKS, any_of
from sft.errors import RecordError
from sft.schema import THOUGHT_FIELDS, JsonObject, Message, ToolCall


def template_literals(source: str) -> re.Pattern[str]:
    """Finds the words that a template may search for in the contents of messages.

    They are the texts that it tests with `in`, passes to methods, filters and tests that search a text, or compares
    with a text or a part of one. Upper and lower case are equal where the template makes them so.
    """
    tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(without_generation_marks(source))
    found: set[str] = set()
    for compare in tree.find_all(nodes.Compare):
        if any(operand.op in ("in", "notin") for operand in compare.ops):
            found.update(_texts([compare.expr]))
        if not (isinstance(compare.expr, nodes.Getattr | nodes.Getitem) and _is_key(compare.expr)):
            found.update(_texts([operand.expr for operand in compare.ops]))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in _SEARCHES:
            found.update(_texts(call.args))
    for item in tree.find_all((nodes.Filter, nodes.Test)):
        if item.name in _SEARCHES:
            found.update(_texts(item.args))
    pattern = any_of(frozenset(words for words in found - _KEYS if words.strip()))
    return re.compile(pattern.pattern, re.IGNORECASE) if _CASE.search(source) else pattern


def depends_on_words(render_template: RenderTemplate) -> bool:
    """Whether the template's own text changes with the length or the characters of the words."""
    for messages in _CONVERSATIONS:
        try:
            due = _written_around(render_template, messages, _WORDS)
        except RecordError:
            continue
        try:
            return any(_written_around(render_template, messages, words) != due for words in _OTHER_WORDS)
        except RecordError:
            return True
    return False


_SEARCHES = frozenset(
    {
        *("split", "rsplit", "partition", "rpartition", "startswith", "endswith", "find", "rfind", "index", "count"),
        *("replace", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "trim"),
        *("select", "reject", "equalto", "eq", "==", "ne", "!=", "in"),
    }
)
_KEYS = frozenset(
    {
        *("role", "content", "tool_calls", "tool_call_id", "name", "arguments", "function", "type", "id", "text"),
        *("parameters", "description", "properties", "required", "items", "enum", *THOUGHT_FIELDS),
        *("system", "user", "assistant", "tool", "equalto", "eq", "==", "ne", "!=", "in"),
    }
)
"""Keys of messages and tools, and roles: a template that tests for these does not look at words."""

_CASE = re.compile(r"\b(?:lower|upper|casefold|swapcase|title|capitalize)\b")

_WORDS = "qzxj{}"
_OTHER_WORDS = (
    "7091{}",
    "QZXJ{}",
    "Qzxj{}. Qzxk?",
    "{{qzxj{}}}",
    "[qzxj{}]",
    "qzxj{}\nqzxk",
    f"qzxj{{}}{' qzxk' * 2000}",
)


def _conversations() -> tuple[tuple[Message, ...], ...]:
    """One with everything that a conversation may have, and reduced ones for templates that refuse it."""
    call = Message("assistant", "", tool_calls=(ToolCall("probecall", {"probekey": "{}"}, "000000001"),))
    result = Message("tool", "{}", call_id="000000001")
    system, user, answer = Message("system", "{}"), Message("user", "{}"), Message("assistant", "{}")
    thinking = Message("assistant", "{}", thought="{}")
    plain = (user, answer, user, answer)
    calling = (user, call, result, answer, user, thinking)
    return ((system, *calling), calling, (system, *plain), plain)


_CONVERSATIONS = _conversations()


def _written_around(render_template: RenderTemplate, messages: tuple[Message, ...], words: str) -> list[str]:
    """What the template writes of the conversation and of its beginnings, with marks in the place of the words."""
    given = [words.format(f"{number:02d}") for number in range(2 * len(messages))]
    filled = [_fill(message, *given[2 * i : 2 * i + 2]) for i, message in enumerate(messages)]
    ends = [i + 1 for i, message in enumerate(messages) if message.role in ("user", "tool")]
    texts = [render_template(filled, _TOOLS), *[render_template(filled[:i], _TOOLS, for_generation=True) for i in ends]]
    for number, written in enumerate(given):
        mark = f"{chr(MARKS[0])}{number}{chr(MARKS[1])}"
        texts = [text.replace(written, mark).replace(json.dumps(written)[1:-1], mark) for text in texts]
    return texts


def _fill(message: Message, words: str, thought: str) -> Message:
    calls = tuple(replace(call, arguments=dict.fromkeys(call.arguments, words)) for call in message.tool_calls)
    return replace(message, content=message.content and words, thought=message.thought and thought, tool_calls=calls)


_PARAMETERS = {"type": "object", "properties": {"probekey": {"type": "string", "description": "probe"}}}
_TOOLS: tuple[JsonObject, ...] = (
    {"type": "function", "function": {"name": "probecall", "description": "probe", "parameters": _PARAMETERS}},
)


def _is_key(expression: nodes.Getattr | nodes.Getitem) -> bool:
    """Whether it is a message's role, or the like for a tool."""
    if isinstance(expression, nodes.Getattr):
        return expression.attr in _NO_WORDS
    return isinstance(expression.arg, nodes.Const) and expression.arg.value in _NO_WORDS


_NO_WORDS = frozenset({"role", "type"})


def _texts(operands: list[nodes.Expr]) -> list[str]:
    constants = [node for operand in operands for node in (operand, *operand.find_all(nodes.Const))]
    return [node.value for node in constants if isinstance(node, nodes.Const) and isinstance(node.value, str)]
