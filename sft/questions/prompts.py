"""From a record to the prompt that a model gets at inference: system text, task tag and turns as in training, examples
of the task in front, and the template's own generation prompt at the end.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from sft.data.record_pipeline import Formatted, RecordPipeline, Tagging
from sft.data.rendering.adaptation import TemplateTraits
from sft.data.rendering.turn_form import TurnForm, template_turn
from sft.errors import RecordError
from sft.questions.question import Option
from sft.schema import Conversation, JsonObject, Message, TokenizedRecord
from sft.scoring.call_form import Expected, in_usual_calls, usual_call
from sft.scoring.tool_call import are_same, calls_in
from sft.thoughts import answer_in, whole_text, without_thought

_OPENAI = TurnForm(text_arguments=True)

_BETWEEN = "\n\n"


class Prompt(NamedTuple):
    """What a model goes on from, in the three forms that models take."""

    messages: tuple[JsonObject, ...]
    text: str
    ids: tuple[int, ...]


class PromptWriter:
    """Writes prompts with one tokenizer, one template and one way to show examples."""

    def __init__(self, pipeline: RecordPipeline, shots_as: Literal["turns", "text"], tagging: Tagging) -> None:
        """`pipeline` made, or would make, the run's token store."""
        self._pipeline, self._shots_as, self._tagging = pipeline, shots_as, tagging

    def write(self, formatted: Formatted, shown: Sequence[Conversation] = ()) -> Prompt:
        """The prompt of the record's last answer, behind examples.

        Raises:
            RecordError: the template does not write the prompt, or examples cannot be shown with it.
        """
        content = formatted.content
        if isinstance(content, TokenizedRecord):
            return self._of_ids(content, shown)
        tagged = self._tagged(content, formatted.hashes.prompt, shown)
        text, _ = self._pipeline.renderer.last_answer(tagged)
        messages = tuple(template_turn(message, _OPENAI) for message in tagged.messages[:-1])
        return Prompt(messages, text, tuple(self._pipeline.tokenizer.ids_of(text)))

    def options(self, formatted: Formatted, shown: Sequence[Conversation], options: Sequence[str]) -> list[Option]:
        """Each option in the place of the record's last answer.

        Raises:
            RecordError: as `write`, or the template does not write an option whole.
        """
        content = formatted.content
        if isinstance(content, TokenizedRecord):
            raise RecordError("options cannot be put into a record that came as token ids")
        tagged = self._tagged(content, formatted.hashes.prompt, shown)
        answers = [replace(tagged.messages[-1], content=option, tool_calls=(), thought="") for option in options]
        conversations = [replace(tagged, messages=(*tagged.messages[:-1], answer)) for answer in answers]
        renderings = [self._pipeline.renderer.last_answer(conversation)[1] for conversation in conversations]
        made = []
        for example in self._pipeline.tokenizer.tokenize(renderings):
            if isinstance(example, RecordError):
                raise example
            learned = example.loss_mask.nonzero()[0]
            made.append(Option(tuple(example.input_ids[: learned[-1] + 1].tolist()), int(learned[0])))
        return made

    def _tagged(self, content: Conversation, key: int, shown: Sequence[Conversation]) -> Conversation:
        return self._pipeline.tag(self._with_shown(content, shown), key, self._tagging)

    def _with_shown(self, asked: Conversation, shown: Sequence[Conversation]) -> Conversation:
        if not shown:
            return asked
        system = tuple(message for message in asked.messages[:1] if message.role == "system")
        own = asked.messages[len(system) :]
        turns = [_without_system(conversation.messages) for conversation in shown]
        if self._shots_as == "turns":
            return replace(asked, messages=(*system, *(turn for group in turns for turn in group), *own))
        first, *others = own
        if first.role != "user":
            raise RecordError("examples cannot be shown as text: the conversation does not begin with a user turn")
        if any(turn.tool_calls for group in turns for turn in group):
            raise RecordError("examples that call tools cannot be shown as text, only as turns (evaluate.shots_as)")
        blocks = [_BETWEEN.join(turn.full_text for turn in group) for group in turns]
        first = replace(first, content=_BETWEEN.join([*blocks, first.content]))
        return replace(asked, messages=(*system, first, *others))

    def _of_ids(self, record: TokenizedRecord, shown: Sequence[Conversation]) -> Prompt:
        if shown:
            raise RecordError("examples cannot be shown with a record that came as token ids")
        ids = record.example.input_ids[: last_answer(record)[0]].tolist()
        return Prompt((), self._pipeline.tokenizer.text_of(ids), tuple(ids))


def last_answer(record: TokenizedRecord) -> tuple[int, int]:
    """Where the last learned tokens in a row begin, and where they end."""
    learned = record.example.loss_mask.nonzero()[0]
    stop = int(learned[-1]) + 1
    start = stop - 1
    while record.example.loss_mask[start - 1]:  # position 0 is never learned
        start -= 1
    return start, stop


def _without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(message for message in messages if message.role != "system")


def up_to_last_learned(formatted: Formatted, traits: TemplateTraits) -> Formatted:
    """The record as far as its last answer that is learned: nobody asks for what is not to be imitated.

    Of several calls in it, the first is asked for where the template has one call a turn: so it is learned.
    """
    content = formatted.content
    if isinstance(content, TokenizedRecord):
        return formatted
    last = max(i for i, message in enumerate(content.messages) if message.role == "assistant" and message.train)
    answer = content.messages[last]
    if traits.has_tool_calls and not traits.has_parallel_calls:
        answer = replace(answer, tool_calls=answer.tool_calls[:1])
    return formatted._replace(content=replace(content, messages=(*content.messages[:last], answer)))


class Reference(NamedTuple):
    """The record's own right answer."""

    text: str
    """Without its thought, as answers are compared without theirs, and with its calls in the usual form."""
    thinks: bool
    """Whether there is a thought in front."""
    tool_calls: tuple[JsonObject, ...] = ()
    written: str = ""
    """As `Question.written`."""


def reference_of(formatted: Formatted, pipeline: RecordPipeline) -> Reference:
    """The record's own right answer.

    Raises:
        RecordError: the template does not write it.
    """
    content, marks = formatted.content, pipeline.tokenizer.marks
    if isinstance(content, TokenizedRecord):
        start, stop = last_answer(content)
        ids = content.example.input_ids.tolist()
        words = pipeline.tokenizer.words_of(ids[start:stop])
        whole = whole_text(pipeline.tokenizer.text_of(ids[:start]), words, thinks=False, marks=marks)
        said = without_thought(whole)
        return Reference(in_usual_calls(said, pipeline.tokenizer.call_form, Expected()), said != whole)
    answer = content.messages[-1]
    # A thought in an unusual form is part of the content.
    said = without_thought(answer.content, marks)
    calls: list[dict[str, Any]] = [{"name": c.name, "arguments": dict(c.arguments)} for c in answer.tool_calls]
    thinks = bool(answer.thought) or said != answer.content
    if not calls:
        return Reference(said, thinks)
    usual = "\n".join(usual_call(call.name, call.arguments) for call in answer.tool_calls)
    text = f"{said.strip()}\n{usual}".strip()
    if not are_same(calls_in(text), answer.tool_calls):
        text = usual  # words that themselves hold the mark of a call would hide it
    expected = Expected(answer.tool_calls, content.tools)
    written = _written(content, pipeline)
    is_read = are_same(calls_in(in_usual_calls(written, pipeline.tokenizer.call_form, expected)), answer.tool_calls)
    return Reference(text, thinks, tuple(calls), "" if is_read else written)


def _written(conversation: Conversation, pipeline: RecordPipeline) -> str:
    """The words that a model writes for the last answer, without its thought and its last token, at which it stops."""
    prompt, rendering = pipeline.renderer.last_answer(conversation)
    ids = pipeline.tokenizer.ids_of(rendering.text[len(prompt) : rendering.answers[0][1]])
    words = pipeline.tokenizer.words_of(ids[:-1])
    thinks = bool(conversation.messages[-1].thought)
    return answer_in(whole_text(prompt, words, thinks, pipeline.tokenizer.marks)).answer.strip()
