"""Compares stored rows with their records, read and rendered again, in ways that the store was not made in.

The ids come from transformers' own `apply_chat_template`. What is learned, placed by the tokenizer's offsets, is
compared with what a model meets at inference (`answer_check`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from sft.data.learned_stops import learned_stop_ids
from sft.data.rendering.chat_template import TemplateRenderer, control_ids
from sft.data.rendering.inference import Inference
from sft.data.rendering.renderer import Rendering
from sft.data.token_store import TokenStore
from sft.errors import RecordError
from sft.inspection.answer_check import AnswerCheck, LearnedRun
from sft.inspection.check_result import Findings, Invariant
from sft.inspection.rendered_rows import RenderedRow
from sft.inspection.template_texts import TemplateTexts
from sft.schema import BoolArray, Conversation, IntArray

Row = tuple[IntArray, BoolArray]
Run = tuple[int, int]


class _Templated(NamedTuple):
    """A conversation by the tokenizer's own template: its text, its ids, and the characters of each id."""

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]


class SourceCheck:
    """Checks rows of one store, a chunk at a time."""

    def __init__(
        self, store: TokenStore, tokenizer: PreTrainedTokenizerBase, findings: Findings, inference: Inference
    ) -> None:
        self._store = store
        self._tokenizer: Any = tokenizer
        self._backend: Any = tokenizer.backend_tokenizer
        self._inference = inference
        self._texts = TemplateTexts(tokenizer, inference.form)
        ends = learned_stop_ids(store, control_ids(tokenizer))
        self._answer_check = AnswerCheck(tokenizer, self._texts, inference, ends)
        self._findings = findings

    def check(self, numbers: Sequence[int], rows: Sequence[Row], renderings: Sequence[RenderedRow]) -> None:
        """Check rows, given with their numbers in the store, against the renderings of their records.

        Args:
            numbers: the rows' numbers in the store.
            rows: ids and mask of each row.
            renderings: the rendering of each row; fewer if there are no more records.
        """
        for number, item in zip(numbers, renderings, strict=False):
            if isinstance(item, RecordError):
                self._findings.add(Invariant.RECORD, number, str(item))
        for number in numbers[len(renderings) :]:
            self._findings.add(Invariant.RECORD, number, "no record makes this row")
        rendered = [(n, r, g) for n, r, g in zip(numbers, rows, renderings, strict=False) if isinstance(g, Rendering)]
        templates = self._apply_template([g for _, _, g in rendered])
        for (number, (ids, mask), rendering), due in zip(rendered, templates, strict=True):
            self._findings.add(Invariant.RECORD, number, self._wrong_record(number, rendering.conversation))
            self._findings.add(Invariant.IDS, number, self._wrong_ids(ids, due))
            runs = learned_runs(ids, mask, len(rendering.turns))
            self._findings.add(Invariant.TURNS, number, _wrong_turns(rendering, len(runs)))
            if not isinstance(due, str) and len(ids) == len(due.ids) and len(runs) == len(rendering.turns):
                self._check_answers(number, rendering, due, runs)

    def _check_answers(self, number: int, rendering: Rendering, due: "_Templated", runs: Sequence[Run]) -> None:
        wrong: dict[Invariant, str] = {}
        for turn, (start, end) in zip(rendering.turns, runs, strict=True):
            first, last = due.offsets[start], due.offsets[end - 1]
            run = LearnedRun(first[0], last[1], first[1], due.offsets[start - 1] if start else (0, 0))
            wrong = self._answer_check.check(rendering.conversation, turn, due.text, run) | wrong
        for invariant in (Invariant.BEGIN, Invariant.ANSWER, Invariant.CONTROL, Invariant.END):
            self._findings.add(invariant, number, wrong.get(invariant))

    def _apply_template(self, renderings: Sequence[Rendering]) -> list["_Templated | str"]:
        """Each conversation as the tokenizer's own template writes and tokenizes it, or why it does not."""
        texts: list[str | None] = []
        refusals: list[str] = []
        for rendering in renderings:
            conversation = rendering.conversation
            try:
                text = self._texts.write(conversation.messages, conversation.tools)
            except Exception as error:  # a template is a program: it may raise anything
                texts.append(None)
                refusals.append(f"the chat template refuses the conversation: {error}")
                continue
            texts.append(self._behind_prompt(self._with_ends(text, rendering), rendering))
            refusals.append("")
        whole = [text for text in texts if text is not None]
        if not whole:
            return [*refusals]
        cut = self._tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        made = iter(zip(whole, cut["input_ids"], cut["offset_mapping"], strict=True))
        return [
            refusal if text is None else _Templated(*next(made)) for text, refusal in zip(texts, refusals, strict=True)
        ]

    def _with_ends(self, text: str, rendering: Rendering) -> str:
        """The template's text, or the rendering if the two differ only in ends that were put behind answers."""
        end, made = self._inference.turn_end, rendering.text
        if end is None or made == text:
            return text
        without = made
        for _, stop in reversed(rendering.answers):
            if without[:stop].endswith(end):
                without = without[: stop - len(end)] + without[stop:]
        # The last end may be the token that opens the next turn, where the text was cut.
        return made if without == text or made.startswith(text.rstrip()) else text

    def _behind_prompt(self, text: str, rendering: Rendering) -> str:
        """The template's text; or its prompt for the last answer, and the end of its text behind that."""
        (*asked, _), made = rendering.conversation.messages, rendering.text
        if made == text or rendering.turns[-1] != len(asked):
            return text
        prompt = self._texts.try_to_write(asked, rendering.conversation.tools, for_generation=True)
        is_behind = prompt is not None and made.startswith(prompt) and text.endswith(made[len(prompt) :])
        return made if is_behind else text

    def _wrong_record(self, number: int, conversation: Conversation) -> str | None:
        store = self._store
        try:
            source, task = store.manifest["sources"][store.source_ids[number]], store.tasks[store.task_ids[number]]
            stored = (source, int(store.record_ids[number]), task, store.location(number))
        except IndexError:
            return "its source, task or file is not one that the store names"
        due = (conversation.source, conversation.index, conversation.task, conversation.where)
        # The same content may be at another place than the one it was read from.
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


def learned_runs(ids: IntArray, mask: BoolArray, num_turns: int) -> list[Run]:
    """Where learned runs begin and end; answers that directly follow each other are split behind their stop tokens."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)).nonzero()[0].reshape(-1, 2)
    runs = [(int(start), int(end)) for start, end in edges]
    if len(runs) >= num_turns:
        return runs
    split: list[Run] = []
    for start, end in runs:
        ends = [start + int(i) + 1 for i in (ids[start:end] == ids[end - 1]).nonzero()[0]]
        split += zip([start, *ends], ends, strict=False)
    return split


def inference_of(tokenizer: PreTrainedTokenizerBase) -> Inference:
    """What the tokenizer alone says about the use of its model."""
    stops = frozenset() if tokenizer.eos_token is None else frozenset([str(tokenizer.eos_token)])
    return Inference(stops, form=TemplateRenderer(tokenizer).form)


def _wrong_turns(rendering: Rendering, num_answers: int) -> str | None:
    messages = rendering.conversation.messages
    for turn in rendering.turns:
        if messages[turn].role != "assistant" or not messages[turn].train:
            return f"message {turn + 1} ({messages[turn].role}) is learned, but is not to be trained"
    if num_answers == len(rendering.turns):
        return None
    return f"{num_answers} answers are learned; {len(rendering.turns)} turns are to be trained"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)
