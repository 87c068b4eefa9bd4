"""From the turns of a chat to the prompt that training would have shown: the same reader, tag, template and tokenizer.

A chat has no answer yet, and what is rendered is a conversation that ends in one. A word takes its place; the prompt
ends before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft.config import SftConfig, SourceConfig
from sft.data.record_pipeline import Formatted, RecordPipeline, Tagging
from sft.data.rendering.chat_template import control_ids, load_tokenizer
from sft.data.rendering.inference import generation_stops
from sft.errors import RecordError, UserError
from sft.questions.prompts import Prompt, PromptWriter
from sft.schema import JsonObject, Record, RecordLocation

_WORD = "answer"
"""Stands for the answer that is not there yet."""
_SOURCE = SourceConfig(name="chat", path="chat", format="messages")
"""Where the records of a chat come from."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the user has set for all models. It counts from the next question on, for the whole conversation."""

    system: str = ""
    """The system text; empty: none, so a template may write its own."""
    task: str | None = None
    """The task that the tag names, and the records that are saved; None: none."""
    tagging: Tagging = "never"
    """Which prompts get the tag."""


class ChatPrompts:
    """Writes prompts as one run, or one model, has them."""

    def __init__(self, config: SftConfig, stages: Sequence[str] = ()) -> None:
        """Load tokenizer and template.

        Args:
            config: of the run.
            stages: the folders of models that were trained with these prompts; what they learned to stop at ends an
                answer of every model.

        Raises:
            UserError: they cannot be used, or no token ends an answer.
        """
        self._pipeline = RecordPipeline(config.data, config.model)
        self._shots_as = config.evaluate.shots_as
        self.tokenizer = self._pipeline.tokenizer
        self.has_tag = config.data.task_tag is not None
        self.stop_ids = self._find_stops(config, stages)
        self.fingerprint = self._pipeline.fingerprint
        """Of tokenizer, template and stops."""

    def write(self, turns: Sequence[JsonObject], setting: Setting, tools: Sequence[JsonObject] = ()) -> Prompt:
        """The prompt of turns that end in a question; `tools` may be called in its answer.

        Raises:
            RecordError: they cannot be asked: a control token in a text, or a template that refuses them.
        """
        return self._writer(setting).write(self._formatted([*turns, _answer(_WORD)], setting, tools))

    def check(self, turns: Sequence[JsonObject], setting: Setting) -> None:
        """Look whether turns that end in a reply may be part of a conversation.

        Raises:
            RecordError: they may not: a reply is empty, or holds what no text may hold.
        """
        self._formatted(turns, setting)

    def _writer(self, setting: Setting) -> PromptWriter:
        return PromptWriter(self._pipeline, self._shots_as, setting.tagging)

    def _formatted(self, turns: Sequence[JsonObject], setting: Setting, tools: Sequence[JsonObject] = ()) -> Formatted:
        source = _SOURCE.model_copy(update={"task": setting.task})
        content = {**messages_record(turns), **({"tools": [*tools]} if tools else {})}
        record = Record(source.name, 0, RecordLocation(source.name, 1), content)
        return self._pipeline.format(record, source)

    def _find_stops(self, config: SftConfig, stages: Sequence[str]) -> tuple[int, ...]:
        """The tokens that end the answers to the questions of this run (see `sft.questions.question_set`)."""
        tokenizer: Any = load_tokenizer(config.model)
        learned = self._learned_stop()
        own = tokenizer.convert_tokens_to_ids([*generation_stops(config.model, tokenizer)])
        control, of_stages = set(control_ids(tokenizer)), []
        for folder in stages:
            model = config.model.model_copy(update={"path": folder, "tokenizer": None})
            of_stages += tokenizer.convert_tokens_to_ids([*generation_stops(model, tokenizer)])
        ids = tuple(dict.fromkeys([*learned, *own, *(i for i in of_stages if i in control)]))
        if not ids:
            raise UserError(
                f"model: no token ends an answer of {Path(config.model.path).name}: neither its template nor its "
                "tokenizer has one. Name an end of turn with model.turn_end."
            )
        return ids

    def _learned_stop(self) -> list[int]:
        """The token that the template ends an answer with."""
        plain = Setting()
        try:
            asked = self._formatted([_user(_WORD), _answer(_WORD)], plain)
            [option] = self._writer(plain).options(asked, (), [_WORD])
        except RecordError as error:
            raise UserError(f"model: {error}") from None
        return [option.ids[-1]]


def messages_record(turns: Sequence[JsonObject]) -> JsonObject:
    """A record of the messages format."""
    return {"messages": list(turns)}


def _user(text: str) -> JsonObject:
    return {"role": "user", "content": text}


def _answer(text: str) -> JsonObject:
    return {"role": "assistant", "content": text}
