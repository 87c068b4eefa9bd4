"""Random conversations, and contents that are hard on whoever looks for an answer in a rendered text."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from sft.schema import Conversation, JsonObject, Message, RecordLocation, ToolCall

_REAL = os.environ.get("SFT_REAL_TOKENIZERS")
REAL_TOKENIZERS = sorted(p for p in Path(_REAL).iterdir() if (p / "tokenizer.json").exists()) if _REAL else []
"""Folders of real tokenizers, where a person has some: the properties are tried with each of them, too."""

PIECES = (
    *(" ", "  ", "\n", "\n\n", "\t", "a", "A", "ab", "the answer", "Hello.", "42", "```\ncode\n```"),
    *("é", "e\u0301", "ß", "数学", "🙂", "👩‍👩‍👧", "\u200b", "\u00a0", "مرحبا", "\x00", "\ue000probe\ue000"),
    *("user", "assistant", "system", "model", "assistant\n", "user\n", "<|im_start|>", "<|im_end|>\n"),
    *("<|im_end|>", "</s>", "<s>", "[INST]", " [/INST]", "<<SYS>>\n", "\n<</SYS>>\n\n", "<|eot_id|>"),
    *("<end_of_turn>\n", "<start_of_turn>model\n", "You are a helpful assistant.", "{{ messages }}", "{% raw %}"),
    *("<|end|>\n", "<|assistant|>\n", "<tool_call>", '{"name": "look_up"}', "</tool_response>"),
)
CONTENTS = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(PIECES), max_size=5).map("".join))
ANSWERS = CONTENTS.filter(lambda text: text.strip() != "")
THOUGHTS = st.sampled_from(["", "hm", "a", "so\n\nit is"])
# How data writes a think block; the template may write its white space otherwise.
THINK_BLOCKS = st.sampled_from(["<think>\n{}\n</think>\n\n", "<think>{}</think>", "<think>\n{}</think>\n"])
# Few different texts, so that turns equal or contain one another.
REPEATED = st.sampled_from(["a", "aa", "a a", " a", "a ", "\na", "b"])

OF_A_TEMPLATE = settings(max_examples=settings.default.max_examples // 3)
"""For properties that are tried with each of a dozen templates: together hundreds of conversations."""

# Templates that write a call in the place of the content.
CALLS_WITHOUT_TEXT = ("headers_tools", "mistral")
TOOLS: tuple[JsonObject, ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}.",
            "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": "a word"}}},
        },
    }
    for name in ("look_up", "count")
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["word", "limit"]),
    st.one_of(
        st.integers(-99, 99), st.floats(-9, 9), st.booleans(), st.none(), CONTENTS, st.lists(CONTENTS, max_size=2)
    ),
    max_size=2,
)


@st.composite
def conversations(
    draw: st.DrawFn, *, system: bool = True, thinks: bool = False, untrained: bool = False
) -> Conversation:
    """One to four turns of user and assistant, with a system turn before them where the template has one."""
    repeated = draw(st.booleans())
    contents, answers = (REPEATED, REPEATED) if repeated else (CONTENTS, ANSWERS)
    messages = [Message("system", draw(contents))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        answer = draw(answers)
        if thinks and draw(st.booleans()):
            answer = draw(THINK_BLOCKS).format(draw(THOUGHTS)) + answer.lstrip()
        train = not untrained or draw(st.booleans())
        messages += [Message("user", draw(contents)), Message("assistant", answer, train=train)]
    return conversation(*messages)


@st.composite
def tool_conversations(
    draw: st.DrawFn, *, parallel: bool = True, text_with_calls: bool = True, thinks: bool = False
) -> Conversation:
    """One to three user turns; before an answer, up to two turns that call tools and learn their results."""
    messages = [Message("system", draw(ANSWERS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(ANSWERS)))
        for _ in range(draw(st.integers(0, 2))):
            calls = [draw(tool_calls()) for _ in range(draw(st.integers(1, 2)) if parallel else 1)]
            text = draw(st.one_of(st.just(""), ANSWERS)) if text_with_calls else ""
            if text_with_calls and thinks and draw(st.booleans()):
                text = f"<think>\n{draw(THOUGHTS)}\n</think>\n\n{text.lstrip()}"
            messages.append(Message("assistant", text, tool_calls=tuple(calls)))
            messages += [Message("tool", draw(ANSWERS), call_id=call.call_id) for call in calls]
        messages.append(Message("assistant", draw(ANSWERS)))
    return conversation(*messages, tools=TOOLS if draw(st.booleans()) else TOOLS[:1])


def all_kinds(
    *, thinks: bool = False, text_with_calls: bool = True, untrained: bool = False
) -> st.SearchStrategy[Conversation]:
    """With and without tools."""
    plain = conversations(thinks=thinks, untrained=untrained)
    return st.one_of(plain, tool_conversations(text_with_calls=text_with_calls, thinks=thinks))


@st.composite
def tool_calls(draw: st.DrawFn) -> ToolCall:
    """A call with or without an id, of any length."""
    call_id = draw(st.sampled_from([None, "000000001", "call_abcdefghijklmnop"]))
    return ToolCall(draw(st.sampled_from(["look_up", "count"])), draw(ARGUMENTS), call_id)


def without_tokens(made: Conversation, tokens: re.Pattern[str]) -> Conversation:
    """The conversation without control tokens in its words, as `sft.data.markers` lets it pass."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return tokens.sub("◦", value)
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, list) else value

    def clean_message(message: Message) -> Message:
        calls = tuple(replace(call, arguments=clean(dict(call.arguments))) for call in message.tool_calls)
        return replace(message, content=clean(message.content), thought=clean(message.thought), tool_calls=calls)

    return replace(made, messages=tuple(clean_message(message) for message in made.messages))


def conversation(*messages: Message, tools: tuple[JsonObject, ...] = ()) -> Conversation:
    return Conversation(tuple(messages), "t", "s", 0, RecordLocation("s.jsonl", 1), tools)


def turns(*contents: str, **fields: Any) -> Conversation:
    """User and assistant in turn."""
    return conversation(
        *(Message("assistant", text, **fields) if i % 2 else Message("user", text) for i, text in enumerate(contents))
    )
