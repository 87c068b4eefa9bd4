"""Holds stored rows against their records, read and rendered anew, by ways that the store was not made by.

The ids come from transformers' own `apply_chat_template`, and what is learned is decoded and compared with the
answer's text, so neither spans of characters nor places of tokens are taken on trust.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from sft.data.formats.formatting import RecordError
from sft.data.rendering.chat_template import TEMPLATE_DATE, template_turn
from sft.data.rendering.renderer import Rendering
from sft.data.token_store import TokenStore
from sft.inspection.check_result import Findings, Invariant
from sft.inspection.rendered_rows import RenderedRow
from sft.inspection.token_view import TokenView
from sft.schema import BoolArray, Conversation, IntArray

Row = tuple[IntArray, BoolArray]
Run = tuple[int, int]


class _Templated(NamedTuple):
    """A conversation by the tokenizer's own template: its text, its ids, and the characters of each."""

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]


class SourceCheck:
    """Checks rows of one store, a chunk at a time."""

    def __init__(self, store: TokenStore, tokenizer: PreTrainedTokenizerBase, findings: Findings) -> None:
        self._store = store
        self._tokenizer: Any = tokenizer
        self._backend: Any = tokenizer.backend_tokenizer
        self._template = _with_fixed_date(self._tokenizer.chat_template)
        self._view = TokenView(tokenizer)
        self._findings = findings

    def check(self, numbers: Sequence[int], rows: Sequence[Row], renderings: Sequence[RenderedRow]) -> None:
        """Check rows, given with their numbers in the store, against what their records render to.

        Args:
            numbers: of the rows.
            rows: ids and mask of each.
            renderings: of each; fewer where there are no more records.
        """
        for number, item in zip(numbers, renderings, strict=False):
            if isinstance(item, RecordError):
                self._findings.add(Invariant.RECORD, number, str(item))
        for number in numbers[len(renderings) :]:
            self._findings.add(Invariant.RECORD, number, "there is no record that this row is made of")
        rendered = [(n, r, g) for n, r, g in zip(numbers, rows, renderings, strict=False) if isinstance(g, Rendering)]
        templates = self._apply_template([g.conversation for _, _, g in rendered])
        runs = [learned_runs(ids, mask, len(g.turns)) for _, (ids, mask), g in rendered]
        texts = iter(
            self._backend.decode_batch(
                [ids[a : b - 1].tolist() for (_, (ids, _), _), own in zip(rendered, runs, strict=True) for a, b in own],
                skip_special_tokens=False,
            )
        )
        for (number, (ids, _), rendering), due, own in zip(rendered, templates, runs, strict=True):
            self._findings.add(Invariant.RECORD, number, self._wrong_record(number, rendering.conversation))
            self._findings.add(Invariant.IDS, number, self._wrong_ids(ids, due))
            learned = [(next(texts), int(ids[start])) for start, _ in own]
            self._findings.add(Invariant.TURNS, number, _wrong_turns(rendering, len(own)))
            if len(learned) == len(rendering.turns):
                wrong = [self._wrong_answer(rendering, i, *run) for i, run in enumerate(learned)]
                if not isinstance(due, str):
                    wrong += [_wrong_place(rendering, due, i, *run) for i, run in enumerate(own)]
                self._findings.add(Invariant.ANSWER, number, next((text for text in wrong if text), None))

    def _apply_template(self, conversations: Sequence[Conversation]) -> list["_Templated | str"]:
        """Each as the tokenizer's own template writes and cuts it, or why it does not."""
        result: list[_Templated | str] = [""] * len(conversations)
        plain = [i for i, conversation in enumerate(conversations) if not conversation.tools]
        # Conversations with the same tools, so without any, may be given together.
        for batch in (plain, *([i] for i in range(len(conversations)) if conversations[i].tools)):
            for i, templated in zip(batch, self._apply_to_batch([conversations[i] for i in batch]), strict=True):
                result[i] = templated
        return result

    def _apply_to_batch(self, batch: Sequence[Conversation]) -> list["_Templated | str"]:
        if not batch:
            return []
        turns = [[template_turn(message) for message in conversation.messages] for conversation in batch]
        tools = [dict(tool) for tool in batch[0].tools] or None
        try:
            texts = self._tokenizer.apply_chat_template(
                turns, tools=tools, tokenize=False, chat_template=self._template
            )
        except Exception as error:  # a template is a program: it may raise anything
            if len(batch) > 1:
                return [templated for conversation in batch for templated in self._apply_to_batch([conversation])]
            return [f"the chat template refuses the conversation: {error}"]
        cut = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        return [_Templated(*own) for own in zip(texts, cut["input_ids"], cut["offset_mapping"], strict=True)]

    def _wrong_record(self, number: int, conversation: Conversation) -> str | None:
        store = self._store
        try:
            source, task = store.manifest["sources"][store.source_ids[number]], store.tasks[store.task_ids[number]]
            stored = (source, int(store.record_ids[number]), task, store.place(number))
        except IndexError:
            return "its source, task or file is not one that the store names"
        due = (conversation.source, conversation.index, conversation.task, conversation.where)
        # The same content may lie in another place than it was read from.
        same = stored[:3] == due[:3] and stored[3][1:] == due[3][1:]
        return None if same else f"stored as {_listed(stored)}, read as {_listed(due)}"

    def _wrong_ids(self, ids: IntArray, templated: "_Templated | str") -> str | None:
        if isinstance(templated, str):
            return templated
        due = templated.ids
        if len(ids) == len(due) and (ids == np.array(due, dtype=np.int64)).all():
            return None
        both = min(len(ids), len(due))
        differ = (ids[:both] != np.array(due[:both], dtype=np.int64)).nonzero()[0]
        at = int(differ[0]) if len(differ) else both
        stored, own = (self._backend.decode(list(some[at : at + 8]), skip_special_tokens=False) for some in (ids, due))
        return f"from token {at} on, {stored!r} is stored and the template gives {own!r}"

    def _wrong_answer(self, rendering: Rendering, place: int, learned: str, first_id: int) -> str | None:
        message = rendering.conversation.messages[rendering.turns[place]]
        # A token may hold the space before a word of the answer, but what is white space alone is the template's.
        if self._view.token_bytes(first_id).isspace() and not message.content[:1].isspace():
            return f"white space before the answer is learned: {_excerpt(learned)}"
        due = message.content.strip()
        if message.tool_calls:
            # How a call is written is the template's affair: the text of the answer's span is what there is to learn.
            missing = [words for words in (due, *(call.name for call in message.tool_calls)) if words not in learned]
            if missing:
                return f"{_excerpt(missing[0])} of the answer is not learned, only {_excerpt(learned)}"
            due = rendering.text[slice(*rendering.answers[place])]
        elif due not in rendering.text:
            # The template writes the answer with other white space, such as around a think block.
            due, learned = "".join(due.split()), "".join(learned.split())
        return (
            None if self._are_equal(learned, due) else f"learned is {_excerpt(learned)}, the answer is {_excerpt(due)}"
        )

    def _are_equal(self, learned: str, text: str) -> bool:
        """Equal but for white space around, and for what the tokenizer does to any text (such as NFC)."""
        learned, text = learned.strip(), text.strip()
        normalizer = self._backend.normalizer
        if learned == text or normalizer is None:
            return learned == text
        return bool(normalizer.normalize_str(learned) == normalizer.normalize_str(text))


def _wrong_place(rendering: Rendering, templated: "_Templated", place: int, start: int, end: int) -> str | None:
    """Whether a learned run stands elsewhere than its answer: a prompt may have the same words."""
    if end > len(templated.offsets) or templated.text != rendering.text:
        return None if templated.text == rendering.text else "the template's text is another than the one that was made"
    answer_start, answer_end = rendering.answers[place]
    learned_start, learned_end = templated.offsets[start][0], templated.offsets[end - 1][0]
    between = sorted((answer_start, learned_start)), sorted((answer_end, learned_end))
    if any(templated.text[a:b].strip() for a, b in between):
        shown = _excerpt(templated.text[learned_start:learned_end])
        return (
            f"the characters {learned_start} to {learned_end} are learned ({shown}), not {answer_start} to {answer_end}"
        )
    return None


def learned_runs(ids: IntArray, mask: BoolArray, num_turns: int) -> list[Run]:
    """Where what is learned begins and ends; answers that follow each other at once are split behind their stops."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)).nonzero()[0].reshape(-1, 2)
    runs = [(int(start), int(end)) for start, end in edges]
    if len(runs) >= num_turns:
        return runs
    split: list[Run] = []
    for start, end in runs:
        ends = [start + int(i) + 1 for i in (ids[start:end] == ids[end - 1]).nonzero()[0]]
        split += zip([start, *ends], ends, strict=False)
    return split


def _with_fixed_date(template: str) -> str:
    """The template, told the day that the store's rows were told, whatever day it is."""
    formats = {found[1] for found in re.findall(r"strftime_now\(\s*(['\"])(.*?)\1", template)}
    days = ", ".join(f"{form!r}: {TEMPLATE_DATE.strftime(form)!r}" for form in sorted(formats))
    # A macro hides the function of this name. The plus keeps a line break that the template begins with.
    macro = "{% macro strftime_now(form) %}{{ {DAYS}[form] }}{% endmacro +%}".replace("DAYS", days)
    return macro + template if formats else template


def _wrong_turns(rendering: Rendering, num_answers: int) -> str | None:
    messages = rendering.conversation.messages
    for turn in rendering.turns:
        if messages[turn].role != "assistant" or not messages[turn].train:
            return f"message {turn + 1} ({messages[turn].role}) is learned, which is not to be trained"
    if num_answers == len(rendering.turns):
        return None
    return f"{num_answers} answers are learned, {len(rendering.turns)} turns are to be"


def _excerpt(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 120 else f"{shown[:60]} … {shown[-60:]}"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)
