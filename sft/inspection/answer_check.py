"""Compares what is learned of an answer with what a model meets at inference: its prompt, and its stop tokens.

before the run    the generation prompt, as `apply_chat_template` writes it for the conversation so far
the run           shows thought, words and calls, in this order; no token in it ends the generation early
its end           what the template writes behind a final answer: all of the turn's own end

Everything is rendered by transformers' own `apply_chat_template`; nothing comes from the code that made the mask.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os.path import commonprefix
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sft.data.rendering.chat_template import control_ids
from sft.data.rendering.inference import Inference
from sft.data.rendering.turn_form import template_turn
from sft.inspection.check_result import Invariant
from sft.inspection.template_texts import TemplateTexts
from sft.schema import Conversation, JsonObject, Message, ToolCall

_PROBE = "\ue000probeanswer\ue000"
"""Words that begin and end like no others."""


class LearnedRun(NamedTuple):
    """The position of a run of learned tokens in a text."""

    start: int
    end: int
    first_end: int
    """Where the first token of the run ends."""
    before: tuple[int, int]
    """The token before the run."""


class AnswerCheck:
    """Checks one answer at a time."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: TemplateTexts,
        inference: Inference,
        learned_ends: Collection[int] = (),
    ) -> None:
        """`learned_ends` are the ids of the control tokens that end answers: the tuned model stops at each of them."""
        tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(control_ids(tokenizer))]
        self._control, self._control_in_text = _any_of(map(_squeeze, tokens)), _any_of(tokens)
        self._added = [_squeeze(str(token)) for token in tokenizer.get_added_vocab()]
        self._ends = {str(token) for token in tokenizer.convert_ids_to_tokens([*learned_ends])}
        self._texts = texts
        self._inference = inference

    def check(self, conversation: Conversation, turn: int, text: str, run: LearnedRun) -> dict[Invariant, str]:
        """What is wrong with an answer, by invariant.

        Args:
            conversation: the conversation of the text.
            turn: the message that is learned.
            text: the template's text of the row.
            run: the part of the text that is learned.
        """
        before, learned = _squeeze(text[: run.start]), _squeeze(text[run.start : run.end])
        messages, tools = conversation.messages, conversation.tools
        until = self._texts.try_to_write(messages[: turn + 1], tools)
        if until is None:
            return {Invariant.ANSWER: "the chat template refuses the conversation up to this answer"}
        found = {
            Invariant.BEGIN: self._wrong_begin(messages[: turn + 1], tools, text, run, until),
            Invariant.END: self._wrong_end(messages[: turn + 1], tools, before, learned, _squeeze(until)),
            Invariant.CONTROL: self._wrong_inside(text[run.start : run.end]),
            Invariant.ANSWER: self._wrong_words(messages[turn], learned),
        }
        return {invariant: what for invariant, what in found.items() if what is not None}

    def _wrong_begin(
        self, messages: Sequence[Message], tools: Sequence[JsonObject], text: str, run: LearnedRun, until: str
    ) -> str | None:
        if _is_cut(run, text):
            return f"it begins in the middle of {text[slice(*run.before)]!r}"
        prompt = self._texts.try_to_write(messages[:-1], tools, for_generation=True)
        before, thought = _squeeze(text[: run.start]), _squeeze(messages[-1].thought)
        bare, shown, learned = _squeeze(prompt or ""), _squeeze(until), _squeeze(text[run.start : run.end])
        is_prefix = prompt is not None and shown.startswith(bare)
        if thought and not self._inference.train_on_thoughts:
            right = shown.startswith(before) and before.endswith(thought) and (before.startswith(bare) or not is_prefix)
            return None if right else f"it begins behind {_tail(before)}, and not behind the thought"
        if prompt is None or len(messages) == 1:
            # A greeting answers no prompt: only its own words are learned.
            right = shown.startswith(before) and self._begins_with_words(messages[-1], learned) and _is_words(run, text)
        elif before == bare and not is_prefix:
            right = _is_at(run, text, len(prompt))
        elif not is_prefix:
            return self._wrong_words_only(messages, tools, text, run, bare, shown)
        elif self._header and prompt == self._texts.try_to_write(messages[:-1], tools):
            if not shown.startswith(bare + self._header):
                return self._wrong_words_only(messages, tools, text, run, bare, shown)
            right = before == bare + self._header
        else:
            right = before == bare and (not text.startswith(prompt) or _is_at(run, text, len(prompt)))
        return None if right else f"it begins behind {_tail(before)}; the generation prompt ends in {_tail(bare)}"

    def _wrong_words_only(
        self,
        messages: Sequence[Message],
        tools: Sequence[JsonObject],
        text: str,
        run: LearnedRun,
        bare: str,
        shown: str,
    ) -> str | None:
        """For a template that does not write its own prompt before the answer. What is learned must begin with the
        answer's own words, or where prompt and text differ, or with its calls, behind the text that comes before any
        answer."""
        message, before, learned = messages[-1], _squeeze(text[: run.start]), _squeeze(text[run.start : run.end])
        answered = self._answered(messages[:-1], tools)
        shared = commonprefix([bare, shown])
        if len(shared) < self._asked_end(messages[:-1], tools, bare):
            return f"the text before it is not its prompt, which ends in {_tail(bare)}"
        only_calls = not (message.content or message.thought)
        first = commonprefix([shown, answered]) if answered else shared
        # It may begin before the end of the text that comes before any answer, if that text ends in a part of a token.
        part = first[len(before) :] if first.startswith(before) else ""
        if not before.startswith(first) and not any(token.startswith(part) and token != part for token in self._added):
            return f"it begins behind {_tail(before)}; any answer begins behind {_tail(first)}"
        is_own = answered.startswith(before) if only_calls else self._begins_with_words(message, learned)
        whole = [token.end() for token in self._control.finditer(shared)]
        parts_here = shared.startswith(before) and not any(end > len(before) for end in whole)
        is_plain = not (message.thought or message.tool_calls)
        if shown.startswith(before) and (is_own or (parts_here and not is_plain)) and _is_words(run, text):
            return None
        return f"it begins behind {_tail(before)}; prompt and text differ behind {_tail(shared)}"

    def _asked_end(self, messages: Sequence[Message], tools: Sequence[JsonObject], prompt: str) -> int:
        """Where the words of the last message end in the prompt, in whatever form: behind them the prompt does not
        depend on these words."""
        others = [*messages[:-1], replace(messages[-1], content=_PROBE)]
        other = _squeeze(self._texts.try_to_write(others, tools, for_generation=True) or "")
        return len(prompt) - len(commonprefix([prompt[::-1], other[::-1]]))

    def _begins_with_words(self, message: Message, learned: str) -> bool:
        """Whether what is learned begins with the answer's own first words."""
        in_text = template_turn(message, self._inference.form)["content"]
        own = [words for words in (message.thought or message.content, in_text) if words and isinstance(words, str)]
        return not own or any(learned.startswith(_squeeze(words)) for words in own)

    def _answered(self, messages: Sequence[Message], tools: Sequence[JsonObject]) -> str:
        return _squeeze(self._texts.try_to_write([*messages, Message("assistant", _PROBE)], tools) or "")

    @cached_property
    def _header(self) -> str:
        """What a template without a generation prompt writes before any answer, of text or of calls."""
        user, call = Message("user", "probequestion"), ToolCall("probecall", {"probekey": "probevalue"}, "000000001")
        prompt = self._texts.try_to_write([user], (), for_generation=True)
        if prompt is None or prompt != self._texts.try_to_write([user], ()):
            return ""
        asked = _squeeze(prompt)
        lead = self._answered([user], ()).removeprefix(asked).partition(_PROBE)[0]
        called = _squeeze(self._texts.try_to_write([user, Message("assistant", "", tool_calls=(call,))], ()) or "")
        end = len(commonprefix([lead, called.removeprefix(asked)])) if called else len(lead)
        cut = next((token.start() for token in self._control.finditer(lead) if token.start() < end < token.end()), end)
        return lead[:cut]

    def _wrong_end(
        self, messages: Sequence[Message], tools: Sequence[JsonObject], before: str, learned: str, until: str
    ) -> str | None:
        # If the answer was put behind its prompt, the template may write other words before it once it is there.
        place = until.rfind(learned)
        through = before + learned if until.startswith(before) or place < 0 else until[: place + len(learned)]
        tokens = self._control.findall(through)
        if not tokens or not learned.endswith(tokens[-1]):
            return f"it ends in {_tail(learned)}, which does not end a turn"
        last = tokens[-1]
        if until.startswith(through):
            behind = self._control.match(until, len(through))
            if behind is None or last in self._stops():
                return None
            followed = self._texts.try_to_write([*messages, Message("user", "probequestion")], tools) or ""
            if _squeeze(followed).startswith(through + behind.group()):
                return f"the turn goes on with {behind.group()}, which is not learned"
            return None
        is_put = self._inference.turn_end is not None and last in self._stops()
        if is_put and until.startswith(through.removesuffix(last)):
            return None
        return f"it ends in {_tail(through)}, which the template does not write when this answer is the last"

    def _wrong_inside(self, learned: str) -> str | None:
        tokens = self._control_in_text.findall(learned)
        stops = {*self._inference.stop_tokens, self._inference.turn_end, *self._ends, *tokens[-1:]}
        early = next((token for token in tokens[:-1] if token in stops), None)
        return None if early is None else f"the model would stop at {early} inside of {_excerpt(learned)}"

    def _wrong_words(self, message: Message, learned: str) -> str | None:
        at = 0
        thought = message.thought if self._inference.train_on_thoughts else ""
        for words in (thought, message.content, *[call.name for call in message.tool_calls]):
            found = learned.find(_squeeze(words), at)
            if found < 0:
                return f"{_excerpt(words)} is not learned, only {_excerpt(learned)}"
            at = found + len(_squeeze(words))
        for call in message.tool_calls:
            for value in _leaves(call.arguments):
                if not any(_squeeze(form) in learned for form in _written(value)):
                    return f"{_excerpt(str(value))} of the call of {call.name} is not learned, only {_excerpt(learned)}"
        return None

    def _stops(self) -> set[str]:
        own = self._inference.turn_end
        return {_squeeze(token) for token in (*self._inference.stop_tokens, *([own] if own else []))}


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    ordered = sorted(filter(None, tokens), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def _is_at(run: LearnedRun, text: str, place: int) -> bool:
    """Whether the run begins at this place, as closely as token boundaries allow."""
    if run.start == place:  # no token before it holds a part of the answer
        return run.before[0] < place or run.before[1] <= place
    if run.start < place:  # one token covers white space before and the answer's first word
        return run.first_end > place and text[run.start : place].isspace()
    # One token covers words before and the answer's first characters.
    covered = run.before[0] < place < run.before[1] and not text[run.before[0] : place].isspace()
    return covered or (run.before[1] <= place and text[place : run.start].isspace())


def _is_words(run: LearnedRun, text: str) -> bool:
    """Whether the first token of the run is more than white space, which belongs to the template."""
    return not text[run.start : run.first_end].isspace()


def _is_cut(run: LearnedRun, text: str) -> bool:
    """Whether the token before the run holds characters of the answer and no other words: it should be in the run."""
    begin, end = run.before
    return begin <= run.start < end and not text[begin : run.start].strip() and bool(text[begin:end].strip())


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


def _written(value: Any) -> tuple[str, ...]:
    """How templates write a value: as it is, in JSON, in Python."""
    if isinstance(value, str):
        return value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1], repr(value)[1:-1]
    return json.dumps(value), repr(value)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _excerpt(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 120 else f"{shown[:60]} … {shown[-60:]}"


def _tail(text: str) -> str:
    return repr(text if len(text) <= 60 else f"…{text[-60:]}")
