"""Finds, provably, what is learned of the last answer of a conversation.

    prompt    <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n
    text      <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\nHello.<|im_end|>\\n
    learned                                                           ⟦<think>\\n\\n</think>\\n\\nHello.<|im_end|>⟧

Both texts are the template's own: the prompt is what it gives a model that has to answer, the text is the conversation
with the answer just written. The model must write everything from the prompt's end to the end of the turn, and this
part has to show the answer. To prove it, the conversation is rendered once more with a probe in the place of the
answer: only the answer's own thought, words, and the names and arguments of calls may change.

Some templates change the text before an answer once the answer is there. Then the answer is put behind the prompt,
because that is what a model at inference sees.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from sft.data.rendering.adaptation import RenderTemplate
from sft.data.rendering.turn_bounds import MARKS, TurnBounds, find_prompt_end, num_common
from sft.errors import RecordError
from sft.schema import JsonObject, Message, ToolCall

Span = tuple[int, int]

_MOST_TOKEN_CHARS = 256

WORDS_ONLY = (
    "the chat template does not write its generation prompt before an answer: only the answer's own words and the "
    "end of the turn are learned"
)
"""Used where the prompt does not determine the beginning of an answer."""


BEHIND_PROMPT = (
    "the chat template changes the text before an answer once the answer is there: the answer is learned behind the "
    "generation prompt"
)
"""Used where thoughts or tools disappear once the answer that they led to is there."""


class Answered(NamedTuple):
    """A conversation that ends in an answer, as text, and the part of it that is learned."""

    text: str
    span: Span
    notes: tuple[str, ...] = ()


class _Begun(NamedTuple):
    """Where an answer begins in a text."""

    text: str
    start: int
    notes: tuple[str, ...] = ()


def find_answer(
    render_template: RenderTemplate,
    bounds: TurnBounds,
    messages: Sequence[Message],
    tools: Sequence[JsonObject],
    following: str = "",
) -> Answered:
    """The text, and what is learned of the last message.

    Args:
        render_template: the template.
        bounds: where its turns begin and end.
        messages: end in an assistant turn.
        tools: that the assistant may call.
        following: the text of the conversation with later turns, if there are any.

    Raises:
        RecordError: the template refuses the conversation, does not show the answer, or does not end the turn.
    """
    message = messages[-1]
    text = render_template(messages, tools)
    changed = find_changed_text(render_template, messages, tools, text)
    if changed is None:
        raise _not_shown("does not show where the answer is", message, text)
    begun, start, notes = _begin(render_template, bounds, messages, tools, text, changed)
    moved = len(begun) - len(text)  # behind its own prompt, the answer may be at another position
    text, changed = begun, (changed[0] + moved, changed[1] + moved)
    if changed[1] <= start or _cover(text, start, changed, message) is None:
        raise _not_shown("does not write the whole answer", message, text)
    found = bounds.find_end(text, start)
    is_end = bounds.ends_turns or (found is not None and bounds.stops_before(text, found))
    if bounds.turn_end is not None and not is_end:
        note = f"the chat template does not end an answer: {bounds.turn_end} is put behind it"
        text, found = bounds.put_end(text, changed[1], following)
        notes = (*notes, note)
    elif found is None or not is_end:
        raise RecordError(
            f"{_no_stop(text[changed[1] : found])}, so the model would not learn to stop\n"
            f"      the template's text: {_excerpt(text)}\n"
            "      Needed: a template that ends an answer with the tokenizer's end-of-turn token and nothing but\n"
            "      white space around it, or with a token of eos_token_id in the model's generation_config.json.\n"
            "      Choose another with model.chat_template, or put the model's own end of generation behind each\n"
            "      answer: model.turn_end=auto"
        )
    if stop := bounds.find_stop_inside(text, start, found):
        raise RecordError(
            f"the chat template writes {stop} inside the answer, at which the model would stop\n"
            f"      what it would learn: {_excerpt(text[start:found])}\n"
            "      Needed: a template that writes the answer in one turn. Choose another with model.chat_template."
        )
    return Answered(text, (start, found), notes)


def _begin(
    render_template: RenderTemplate,
    bounds: TurnBounds,
    messages: Sequence[Message],
    tools: Sequence[JsonObject],
    text: str,
    changed: Span,
) -> _Begun:
    """Where the answer begins; in another text if the template writes another prompt in this one."""
    prompt, is_asked = None, len(messages) > 1
    if is_asked:  # else it is a greeting that follows no prompt, and only its words are learned
        with suppress(RecordError):
            prompt = render_template(messages[:-1], tools, for_generation=True)
    start = None if prompt is None else bounds.find_start(text, prompt)
    if start is not None:
        return _Begun(text, start)
    if prompt is not None:
        asked = _find_asked(render_template, messages[:-1], tools, prompt)
        if find_prompt_end(text, prompt[: asked[1]]) is None:
            return _behind_prompt(text, changed, prompt, asked[0])
    words = _cover(text, 0, changed, messages[-1])
    if words is None:
        raise _not_shown("does not write the whole answer", messages[-1], text)
    return _Begun(text, _begin_of_words(bounds, text, words[0]), (WORDS_ONLY,) if is_asked else ())


def _find_asked(
    render_template: RenderTemplate, asked: Sequence[Message], tools: Sequence[JsonObject], prompt: str
) -> Span:
    """The span of the last message's words in the prompt, in any spelling: the part that changes with these words."""
    probe, words = replace(asked[-1], content=_mark_for(prompt)), asked[-1].content.strip()
    other = render_template([*asked[:-1], probe], tools, for_generation=True)
    end = len(prompt) - num_common(prompt[::-1], other[::-1])
    through = len(prompt[:end].rstrip())
    start = through - len(words) if prompt.endswith(words, 0, through) else num_common(prompt, other)
    return min(start, end), end


def _behind_prompt(text: str, changed: Span, prompt: str, last_message: int) -> _Begun:
    """The answer as the text writes it, behind the prompt, for templates that change the text before an answer.

    Raises:
        RecordError: the text does not have the end of the prompt, from `last_message` on, before the answer.
    """
    asked = prompt[last_message:]
    found = text.rfind(asked, 0, changed[0] + len(asked))
    if found < 0:
        raise RecordError(
            "the chat template writes the text before an answer differently than its generation prompt\n"
            f"      the prompt:          {_excerpt(prompt)}\n"
            f"      the template's text: {_excerpt(text)}\n"
            "      Needed: a template that writes an answer behind its prompt. Choose another with model.chat_template."
        )
    return _Begun(prompt + text[found + len(asked) :], len(prompt), (BEHIND_PROMPT,))


def find_changed_text(
    render_template: RenderTemplate, messages: Sequence[Message], tools: Sequence[JsonObject], text: str
) -> Span | None:
    """The part of `text` that changes when a probe replaces the last answer; None where nothing changes."""
    probe = _mark_for(text)
    try:
        other = render_template([*messages[:-1], Message("assistant", probe)], tools)
    except RecordError:
        return None
    before, found, behind = other.partition(probe)
    if not found or probe in behind:
        return None
    start, end = num_common(text, before), len(text) - num_common(text[::-1], behind[::-1])
    return (start, end) if start < end else None


def _mark_for(text: str) -> str:
    """Words that begin and end as nothing in the text does."""
    mark = next(chr(code) for code in MARKS if chr(code) not in text)
    return f"{mark}probe{mark}"


def shows(learned: str, message: Message) -> bool:
    """Whether a text without white space has the message's thought, content and calls, in this order."""
    at = 0
    for words in (squeeze(message.thought), squeeze(message.content)):
        found = learned.find(words, at)
        if found < 0:
            return False
        at = found + len(words)
    return _shows_calls(learned[at:], message.tool_calls)


def _cover(text: str, begin: int, changed: Span, message: Message) -> Span | None:
    """The changed text, extended towards `begin` until it shows the whole answer; None where it never does.

    Less than the answer changes where the template treats the beginning separately: a think block, which it also writes
    around nothing.
    """
    start, end = max(changed[0], begin), changed[1]
    if message.thought and shows(squeeze(text[begin:end]), message):
        return start, end
    before, shown, words = squeeze(text[begin:start]), squeeze(text[start:end]), squeeze(message.full_text)
    if not shown:
        return None
    for num_before in range(len(words) + 1) if message.tool_calls else (len(words) - len(shown),):
        beginning, rest = words[: max(num_before, 0)], words[max(num_before, 0) :]
        if shown.startswith(rest) and before.endswith(beginning):
            if not _shows_calls(shown[len(rest) :], message.tool_calls, exactly=True):
                continue
            while num_before > 0:
                start -= 1
                num_before -= not text[start].isspace()
            return start, end
    return None


def _begin_of_words(bounds: TurnBounds, text: str, start: int) -> int:
    """White space before words belongs to the template. An answer may begin with a token of its own that shares its
    first characters with another one."""
    while start < len(text) and text[start].isspace():
        start += 1
    for token in bounds.control.finditer(text, max(0, start - _MOST_TOKEN_CHARS)):
        if token.start() < start < token.end():
            return token.start()
    return start


def _shows_calls(shown: str, calls: Sequence[ToolCall], exactly: bool = False) -> bool:
    """Whether a text without white space has the calls' names, in order, and arguments. With `exactly`, a text without
    calls has to be empty."""
    if not calls:
        return not (shown and exactly)
    at = 0
    for call in calls:
        found = shown.find(squeeze(call.name), at)
        if found < 0:
            return False
        at = found + len(squeeze(call.name))
        for value in _leaves(call.arguments):
            if not any(squeeze(form) in shown for form in _written_forms(value)):
                return False
    return True


def _leaves(value: Any) -> Iterator[str | float]:
    """The texts and numbers in the arguments of a call. Templates spell the other constants in several ways."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


def _written_forms(value: str | float) -> tuple[str, ...]:
    """As it is; in JSON, with and without non-ASCII characters; in Python."""
    if isinstance(value, str):
        return value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1], repr(value)[1:-1]
    return json.dumps(value), repr(value)


def squeeze(text: str) -> str:
    """The text without its white space."""
    return "".join(text.split())


def _not_shown(problem: str, message: Message, text: str) -> RecordError:
    calls = "".join(f" + a call of {call.name} with {_excerpt(dict(call.arguments))}" for call in message.tool_calls)
    return RecordError(
        f"the chat template {problem}\n"
        f"      the answer:          {_excerpt(message.full_text)}{calls}\n"
        f"      the template's text: {_excerpt(text)}\n"
        "      Needed: a template that writes the answer's own words. Choose another with model.chat_template."
    )


def _no_stop(behind: str) -> str:
    """What is wrong with an end that is not known to be one; `behind` is what the template writes behind the words."""
    if not behind.strip():
        return "the chat template writes no stop token behind the answer"
    shown = _excerpt(behind.strip())
    return f"the chat template writes {shown} behind the answer, and nothing in it is known to end generation"


def _excerpt(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 400 else f"{shown[:200]} … {shown[-200:]}"
