"""End-of-text markers in the data's texts: removed from the ends of answers, refused anywhere else.

The chat template writes the stop token itself. So a marker behind an answer (`<|endoftext|>` in data made for another
model) would be learned as words, or as a second stop. A control token of the run's own tokenizer anywhere else in a
text would become that token: it would end or begin a turn where there is none, by accident or by intent.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from sft.errors import RecordError
from sft.schema import Conversation, Message

# `</s>` is not among them: in HTML it is ordinary text. It counts if it is one of the tokenizer's own tokens.
END_MARKERS = frozenset(
    {
        *("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>"),
        *("<end_of_turn>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<|return|>", "<｜end▁of▁sentence｜>"),
    }
)
"""Texts with which the templates of well-known families end a turn or a text, and which end no ordinary text."""


def strip_markers(conversation: Conversation, special_tokens: frozenset[str]) -> tuple[Conversation, int]:
    """The conversation without markers at the ends of its answers, and how many answers had one.

    Args:
        conversation: any.
        special_tokens: the texts of the tokenizer's own control tokens.

    Raises:
        RecordError: an answer is nothing but markers, or a control token occurs elsewhere in a text.
    """
    markers, pattern = _compile(special_tokens)
    messages = list(conversation.messages)
    num_stripped = 0
    for i, message in enumerate(messages):
        if message.role == "assistant" and message.content.rstrip().endswith(markers):
            content = _without_markers(message.content, markers)
            if not content and not message.tool_calls and not message.thought:
                raise RecordError(f"the answer in message {i + 1} is nothing but an end-of-text marker")
            messages[i] = replace(message, content=content)
            num_stripped += 1
        for what, text in _texts(messages[i]):
            _refuse(pattern, text, f"{what} {i + 1} ({message.role})")
    for tool in conversation.tools:
        _refuse(pattern, json.dumps(tool, ensure_ascii=False, default=str), "the tools")
    return (replace(conversation, messages=tuple(messages)) if num_stripped else conversation), num_stripped


def refuse_special_tokens(text: str, special_tokens: frozenset[str], where: str) -> None:
    """Refuse control tokens in a text that becomes part of a prompt without being a message.

    Raises:
        RecordError: it holds a control token.
    """
    _refuse(_compile(special_tokens)[1], text, where)


@lru_cache(maxsize=8)
def _compile(special_tokens: frozenset[str]) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """The markers that are removed from the end of an answer, and a pattern of refused tokens; longer ones first."""
    markers = tuple(sorted((special_tokens | END_MARKERS) - {""}, key=lambda marker: (-len(marker), marker)))
    pattern = "|".join(re.escape(marker) for marker in markers if marker in special_tokens)
    return markers, re.compile(pattern or r"(?!)")


def _without_markers(text: str, markers: tuple[str, ...]) -> str:
    text = text.rstrip()
    while text.endswith(markers):
        text = text.removesuffix(next(m for m in markers if text.endswith(m))).rstrip()
    return text


def _texts(message: Message) -> Iterator[tuple[str, str]]:
    yield "message", message.content
    yield "the thought of message", message.thought
    yield "the call id of message", message.call_id or ""
    for call in message.tool_calls:
        yield "the call id of message", call.call_id or ""
        yield "the tool call in message", call.name
        yield "the tool call in message", json.dumps(call.arguments, ensure_ascii=False, default=str)


def _refuse(pattern: re.Pattern[str], text: str, where: str) -> None:
    found = pattern.search(text)
    if found:
        raise RecordError(
            f"the special token {found.group()!r} stands in {where}: the tokenizer would make a control token of it, "
            "which ends or begins a turn. Take it out of the text, or leave the record out."
        )
