"""Renders a conversation with the model's own chat template, with the span of each answer that is learned.

    conversation ──adapt──▶ what the template can write ──template──▶ text, and where the answers are in it

The text is always the template's own rendering. An answer is learned whole or not at all, and behind exactly the text
that a model at inference is given to answer. The rendering of the whole conversation may write an answer, or the text
before it, differently from the rendering that ends in it: thoughts disappear when later turns follow, tools move to
the last question. Such an answer becomes a rendering of its own, the conversation up to it. In the longer rendering it
is context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sft.data.rendering.adaptation import WRITTEN_AS_TEXT, adapt, derive_traits
from sft.data.rendering.answer_spans import Answered, Span, find_answer, squeeze
from sft.data.rendering.call_forms import derive_call_form
from sft.data.rendering.chat_template import TemplateRenderer
from sft.data.rendering.landmarks import Landmarks
from sft.data.rendering.template_words import depends_on_words, template_literals
from sft.data.rendering.thought_marks import derive_marks
from sft.data.rendering.turn_bounds import any_of, derive_bounds
from sft.errors import RecordError
from sft.schema import Conversation, JsonObject, Message
from sft.thoughts import USUAL

THOUGHTS_AS_TEXT = "the chat template has no field for thoughts: they are written as <think> in front of the answer"
UNMARKED_THOUGHTS = (
    "the chat template does not show where a thought begins and ends: what a model thinks counts as part of its answer"
)
NO_PROMPT = (
    "the chat template writes no generation prompt: at inference, add to its text what it writes before an answer"
)
NEW_STOP = "at which the model does not stop yet: the tuned model's generation config names it"
WRITTEN_ANEW = (
    "the chat template writes earlier answers, or the text before them, differently than it wrote them as the last "
    "answer: each becomes an example of its own, so conversations of several answers take more tokens"
)


@dataclass(frozen=True, slots=True)
class Rendering:
    """The template's text, with the character spans of the answers that are learned."""

    text: str
    answers: tuple[Span, ...]
    """From where the model begins to write to the end of the turn."""
    conversation: Conversation
    """The rendered conversation: as the template can write it, and perhaps only its first turns."""
    turns: tuple[int, ...]
    """The messages of `conversation` that are learned; `answers[i]` is the span of message `turns[i]`."""
    notes: tuple[str, ...] = ()
    """What the template has no form for, and how it is written instead."""


class ConversationRenderer:
    """Renders conversations with one template."""

    def __init__(
        self,
        render_template: TemplateRenderer,
        special_tokens: frozenset[str],
        added_tokens: frozenset[str] = frozenset(),
        train_on: Literal["all_assistant", "last_assistant"] = "all_assistant",
        train_on_thoughts: bool = True,
        stop_tokens: frozenset[str] = frozenset(),
        turn_end: str | None = None,
    ) -> None:
        """Finds out what the template has a form for.

        Args:
            render_template: the template.
            special_tokens: the texts of all control tokens of the tokenizer.
            added_tokens: the texts of its other tokens that words are never cut to.
            train_on: which answers are learned.
            train_on_thoughts: whether thoughts are learned.
            stop_tokens: those at which the model ends its generation.
            turn_end: what to put behind answers that the template does not end.
        """
        self.traits = derive_traits(render_template)
        self.bounds = derive_bounds(render_template, special_tokens, stop_tokens, turn_end)
        self.thought_marks = derive_marks(render_template, render_template.form, self.bounds)
        marks = self.thought_marks or USUAL
        self.call_form = derive_call_form(render_template, self.bounds, self.traits, marks)
        self._render_template = render_template
        self._train_on = train_on
        self._train_on_thoughts = train_on_thoughts
        self._literals = template_literals(render_template.source)
        self._has_landmarks = self.bounds.ends_turns and not depends_on_words(render_template)
        # A token that the template itself writes, special or not, is a landmark, unless it occurs in words.
        written = frozenset(t for t in added_tokens - WRITTEN_AS_TEXT if t in render_template.source)
        self._landmarks = Landmarks(render_template, self._find_answer, any_of(special_tokens | written))

    def render(self, conversation: Conversation) -> tuple[Rendering, ...]:
        """The conversation's rendering; several where the template writes answers differently once others follow.

        Raises:
            RecordError: there is nothing to learn, the template refuses the conversation, or it does not write the
                whole of an answer that is learned.
        """
        conversation, notes = adapt(conversation, self.traits)
        turns = self._learned_turns(conversation)
        if any(m.thought for m in conversation.messages):
            if self._render_template.form.thoughts in ("text", "opened_text"):
                notes = (*notes, THOUGHTS_AS_TEXT)
            elif self.thought_marks is None:
                notes = (*notes, UNMARKED_THOUGHTS)
        if self.bounds.header:
            notes = (*notes, f"{NO_PROMPT}: {self.bounds.header!r}")
        if self.bounds.new_stop:
            notes = (*notes, f"the chat template ends an answer in {self.bounds.new_stop}, {NEW_STOP}")
        text = self._render_template(conversation.messages, conversation.tools)
        renderings = self._place_by_landmarks(conversation, turns, text) or self._place(conversation, turns, text)
        if len(renderings) > 1:
            notes = (*notes, WRITTEN_ANEW)
        return tuple([self._finish(rendering, notes) for rendering in renderings])

    def last_answer(self, conversation: Conversation) -> tuple[str, Rendering]:
        """The prompt of the conversation's last answer, which a model at inference goes on from, and this answer alone,
        as it is learned behind the prompt.

        Raises:
            RecordError: as `render`.
        """
        conversation, _ = adapt(conversation, self.traits)
        answered = self._find_answer(conversation.messages, conversation.tools)
        rendering = _alone(answered, conversation, len(conversation.messages) - 1)
        return answered.text[: answered.span[0]], self._finish(rendering, ())

    def _learned_turns(self, conversation: Conversation) -> tuple[int, ...]:
        turns = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
        if self._train_on == "last_assistant":
            turns = turns[-1:]
        turns = [turn for turn in turns if conversation.messages[turn].train]
        if not turns:
            raise RecordError("no answer of the conversation is to be learned")
        return tuple(turns)

    def _place_by_landmarks(
        self, conversation: Conversation, turns: Sequence[int], text: str
    ) -> tuple[Rendering, ...] | None:
        if not self._has_landmarks or self._has_template_literal(conversation):
            return None
        placed = self._landmarks.place_together(conversation, turns, text)
        if placed is None:
            return None
        alone, together = [], {}
        for turn, place in placed.items():
            if place is not None:
                together[turn] = Answered(text, *place)
                continue
            answered = self._landmarks.place_last(conversation, turn)
            if answered is None:
                return None
            alone.append(_alone(answered, conversation, turn))
        return (*alone, *_together(text, together, conversation))

    def _place(self, conversation: Conversation, turns: Sequence[int], text: str) -> tuple[Rendering, ...]:
        """The slow way: each answer in the conversation up to it, then in the whole."""
        messages = conversation.messages
        answered = {
            turn: find_answer(
                self._render_template,
                self.bounds,
                messages[: turn + 1],
                conversation.tools,
                text if turn + 1 < len(messages) else "",
            )
            for turn in turns
        }
        last = answered.get(len(messages) - 1)
        whole = text if last is None else last.text  # an end may have been put behind it
        together, alone = {}, []
        for turn, found in answered.items():
            if whole.startswith(found.text[: found.span[1]]):
                together[turn] = found
            else:
                alone.append(_alone(found, conversation, turn))
        return (*alone, *_together(whole, together, conversation))

    def _find_answer(self, messages: Sequence[Message], tools: Sequence[JsonObject]) -> Answered:
        return find_answer(self._render_template, self.bounds, messages, tools)

    def _has_template_literal(self, conversation: Conversation) -> bool:
        """Whether a text of the conversation holds words that the template searches for."""
        search = self._literals.search
        return any(
            search(message.content) or (message.thought and search(message.thought))
            for message in conversation.messages
        )

    def _finish(self, rendering: Rendering, notes: tuple[str, ...]) -> Rendering:
        answers = rendering.answers
        if not self._train_on_thoughts:
            messages = rendering.conversation.messages
            answers = tuple(
                _behind_thought(rendering.text, span, messages[turn].thought)
                for turn, span in zip(rendering.turns, answers, strict=True)
            )
        return replace(rendering, answers=answers, notes=(*notes, *rendering.notes))


def _alone(answered: Answered, conversation: Conversation, turn: int) -> Rendering:
    upto = replace(conversation, messages=conversation.messages[: turn + 1])
    return Rendering(answered.text, (answered.span,), upto, (turn,), answered.notes)


def _together(text: str, answered: dict[int, Answered], conversation: Conversation) -> tuple[Rendering, ...]:
    if not answered:
        return ()
    spans = tuple([found.span for found in answered.values()])
    notes = tuple(dict.fromkeys(note for found in answered.values() for note in found.notes))
    return (Rendering(text, spans, conversation, tuple(answered), notes),)


def _behind_thought(text: str, span: Span, thought: str) -> Span:
    """The part of the span behind the last word of the thought."""
    words = squeeze(thought)
    if not words:
        return span
    learned = text[slice(*span)]
    left = squeeze(learned).index(words) + len(words)
    at = 0
    while left > 0:
        left -= not learned[at].isspace()
        at += 1
    return span[0] + at, span[1]
