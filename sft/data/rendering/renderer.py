"""Renders a conversation with the model's own chat template, with the span of each answer that is learned.

    conversation ──adapt──▶ what the template can write ──template──▶ text, and where the answers stand in it

The text is always the template's own rendering, and an answer is learned whole or not at all. Some templates drop a
part of an answer, its think block, as soon as later turns follow. Such an answer becomes a rendering of its own: the
conversation up to it, as the model sees it when it writes the answer. In the longer rendering it is context.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from sft.data.formats.formatting import RecordError
from sft.data.rendering.adaptation import RenderTemplate, adapt, derive_traits
from sft.data.rendering.answer_spans import Scaffolds, Span, find_changed_text, find_last_answer
from sft.schema import Conversation


@dataclass(frozen=True, slots=True)
class Rendering:
    """The template's text, with the character spans of the answers that are learned."""

    text: str
    answers: tuple[Span, ...]
    conversation: Conversation
    """What was rendered: as the template can write it, and perhaps only the first turns."""
    turns: tuple[int, ...]
    """The messages of `conversation` that are learned; `answers[i]` is the span of message `turns[i]`."""
    notes: tuple[str, ...] = ()
    """What the template has no form for, and how it is said instead."""


class ConversationRenderer:
    """Renders conversations with one template."""

    def __init__(
        self,
        render_template: RenderTemplate,
        train_on: Literal["all_assistant", "last_assistant"] = "all_assistant",
        special_tokens: frozenset[str] = frozenset(),
    ) -> None:
        """Finds out what the template has a form for. No answer begins or ends inside one of `special_tokens`."""
        self.traits = derive_traits(render_template)
        self._render_template = render_template
        self._train_on = train_on
        self._special_tokens = re.compile(
            "|".join(map(re.escape, sorted(special_tokens, key=len, reverse=True))) or r"(?!)"
        )
        self._scaffolds = Scaffolds(render_template)

    def render(self, conversation: Conversation) -> tuple[Rendering, ...]:
        """The conversation's rendering; several where the template drops a part of an answer before later turns.

        Raises:
            RecordError: there is nothing to learn, the template refuses the conversation, or it does not write the
                whole of an answer that is learned.
        """
        conversation, notes = adapt(conversation, self.traits)
        turns = self._learned_turns(conversation)
        text = self._render_template(conversation.messages, conversation.tools)
        if not _has_tools(conversation):
            spans = self._scaffolds.match(conversation.messages, text)
            if spans is not None:
                return (Rendering(text, tuple([spans[turn] for turn in turns]), conversation, turns, notes),)
        found = self._find_each_answer(conversation, turns, text)
        return tuple(replace(rendering, notes=notes) for rendering in found) if notes else found

    def _learned_turns(self, conversation: Conversation) -> tuple[int, ...]:
        turns = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
        if self._train_on == "last_assistant":
            turns = turns[-1:]
        turns = [turn for turn in turns if conversation.messages[turn].train]
        if not turns:
            raise RecordError("no answer of the conversation is to be learned")
        return tuple(turns)

    def _find_each_answer(self, conversation: Conversation, turns: tuple[int, ...], text: str) -> tuple[Rendering, ...]:
        whole: dict[int, Span] = {}
        alone = []
        for turn in turns:
            rendering = self._render_up_to(conversation, turn, text)
            span = self._find_again(rendering, conversation, text)
            if span is None:
                alone.append(rendering)
            else:
                whole[turn] = span
        together = [Rendering(text, tuple(whole.values()), conversation, tuple(whole))] if whole else []
        return (*alone, *together)

    def _render_up_to(self, conversation: Conversation, turn: int, text: str) -> Rendering:
        """The conversation as it is when the answer of this turn was just written."""
        if turn + 1 < len(conversation.messages):
            conversation = replace(conversation, messages=conversation.messages[: turn + 1])
            text = self._render_template(conversation.messages, conversation.tools)
        span = find_last_answer(self._render_template, conversation.messages, conversation.tools, text)
        return Rendering(text, (self._outside_special(text, span),), conversation, (turn,))

    def _find_again(self, rendering: Rendering, conversation: Conversation, text: str) -> Span | None:
        """The span in the whole text of the answer that `rendering` ends in; None where it is not written alike."""
        ((start, end),), (turn,) = rendering.answers, rendering.turns
        if text.startswith(rendering.text[:end]):
            return start, end
        changed = find_changed_text(self._render_template, conversation.messages, conversation.tools, turn, text)
        if changed is None:
            return None
        changed = self._outside_special(text, changed)
        return changed if text[slice(*changed)] == rendering.text[start:end] else None

    def _outside_special(self, text: str, span: Span) -> Span:
        """A turn that calls a tool may end in another token than one of text (`<|eom_id|>`, `<|eot_id|>`): what these
        have in common would be cut off the token."""
        start, end = span
        for token in self._special_tokens.finditer(text, start):
            if token.start() >= end:
                break
            if token.end() > end:
                end = token.start()
        return start, end


def _has_tools(conversation: Conversation) -> bool:
    return bool(conversation.tools) or any(m.tool_calls or m.role == "tool" for m in conversation.messages)
