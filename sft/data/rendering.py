"""Renders a conversation with the model's own chat template and finds, provably, where each answer stands in it.

The text is always the template's own rendering. Where the answers are in it is not guessed from marks in the
template (most have none) but derived by rendering probes:

    shape      user, assistant
    probes     <|im_start|>user\\n①<|im_end|>\\n<|im_start|>assistant\\n②<|im_end|>\\n
    scaffold   everything between the probes, once for each sequence of roles

A conversation is proven when scaffold and contents, put together, equal its rendering. Where a template looks
into the contents (Qwen3's think blocks) it is rendered again with one answer exchanged: what changes is the
answer. Where neither shows the answer's own words, the record is refused with both texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Literal

from sft.data.formatting import RecordError
from sft.schema import Conversation, Message

Span = tuple[int, int]
RenderTemplate = Callable[[Sequence[Message]], str]

# Private-use characters, which no template looks for and no tokenizer's normalisation of a template removes.
_PROBES = ("\ue000probe\ue001", "\ue002text\ue003")


@dataclass(frozen=True, slots=True)
class Rendering:
    """The template's text, with the character spans of the answers that are to be learned."""

    text: str
    answers: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class ConversationRenderer:
    """Renders conversations with one template; remembers the scaffold of every sequence of roles."""

    render_template: RenderTemplate
    train_on: Literal["all_assistant", "last_assistant"] = "all_assistant"
    _scaffolds: dict[tuple[str, ...], list[str] | None] = field(default_factory=dict)

    def render(self, conversation: Conversation) -> Rendering:
        """The conversation's text and the spans of its trained answers.

        Raises:
            RecordError: the template refuses the conversation, or an answer's place cannot be proven.
        """
        messages = conversation.messages
        text = self.render_template(messages)
        turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
        if self.train_on == "last_assistant":
            turns = turns[-1:]
        spans = self._match_scaffold(messages, text)
        answers = [spans[i] for i in turns] if spans else [self._exchange_answer(messages, text, i) for i in turns]
        return Rendering(text, tuple(answers))

    def _match_scaffold(self, messages: Sequence[Message], text: str) -> list[Span] | None:
        """Every message's span, if scaffold and contents make up exactly `text`."""
        shape = tuple(message.role for message in messages)
        if shape not in self._scaffolds:
            self._scaffolds[shape] = self._derive_scaffold(messages)
        scaffold = self._scaffolds[shape]
        if scaffold is None or not text.startswith(scaffold[0]):
            return None
        spans, at = [], len(scaffold[0])
        for message, between in zip(messages, scaffold[1:], strict=True):
            # Some templates trim the white space around a message.
            for content in (message.content, message.content.strip()):
                if text.startswith(content + between, at):
                    spans.append((at, at + len(content)))
                    at += len(content) + len(between)
                    break
            else:
                return None
        return spans if at == len(text) else None

    def _derive_scaffold(self, messages: Sequence[Message]) -> list[str] | None:
        """The template's own text before, between and after the messages; None where it is not of that form."""
        probes = [f"{_PROBES[0]}{i}{_PROBES[1]}" for i in range(len(messages))]
        try:
            rest = self.render_template([Message(m.role, p) for m, p in zip(messages, probes, strict=True)])
        except RecordError:
            return None
        scaffold = []
        for probe in probes:
            before, found, rest = rest.partition(probe)
            if not found or any(p in before for p in probes):
                return None
            scaffold.append(before)
        return None if any(p in rest for p in probes) else [*scaffold, rest]

    def _exchange_answer(self, messages: Sequence[Message], text: str, turn: int) -> Span:
        """The span of one answer: the part of `text` that changes when that answer is exchanged for a probe."""
        answer = messages[turn].content
        start = end = len(text)
        for probe in _PROBES:
            changed = [*messages[:turn], Message("assistant", probe), *messages[turn + 1 :]]
            other = self.render_template(changed)
            start = min(start, len(commonprefix([text, other])))
            end = min(end, len(commonprefix([text[::-1], other[::-1]])))
        end = len(text) - end
        # Where nothing changed, the answer is not there, whatever else in the text has its words.
        if start < end:
            words = text[start:end].strip()
            if words == answer.strip():
                return start, end
            # Where the template treats part of the answer apart (a think block), less than the answer changed.
            for content in (answer, answer.strip()):
                at = text.rfind(content, 0, start + len(content))
                if at != -1 and at <= start and at + len(content) >= end:
                    return at, at + len(content)
            if words and words in answer:
                return start, end
        raise RecordError(
            "the chat template does not show where the answer is\n"
            f"      the answer:          {_excerpt(answer)}\n"
            f"      the template's text: {_excerpt(text)}\n"
            "      Needed: a template that writes the answer's own words. Choose another with model.chat_template."
        )


def _excerpt(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 400 else f"{shown[:200]} … {shown[-200:]}"
