"""Prompts behind which a model writes a user's turn, instead of an answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sft.config import ModelConfig
from sft.data.rendering.chat_template import TemplateRenderer, control_ids, load_tokenizer, template_name
from sft.data.rendering.turn_bounds import any_of
from sft.data.rendering.user_turns import find_user_turn
from sft.errors import RecordError
from sft.schema import JsonObject, Message


class UserPrompt(NamedTuple):
    """What a model goes on from, and where the turn ends."""

    ids: tuple[int, ...]
    end_id: int


class UserTurns:
    """Writes such prompts with the template of one model."""

    def __init__(self, model: ModelConfig) -> None:
        """Load tokenizer and template.

        Raises:
            UserError: they cannot be used.
        """
        self._tokenizer: Any = load_tokenizer(model)
        self._render = TemplateRenderer(self._tokenizer, template_name(model))
        tokens = self._tokenizer.convert_ids_to_tokens(control_ids(self._tokenizer))
        self._control = any_of(frozenset(map(str, tokens)))

    def write(self, before: Sequence[JsonObject]) -> UserPrompt:
        """The prompt behind these turns, each with role and content.

        Raises:
            RecordError: the template does not mark a user's turn, or a text holds a control token.
        """
        for turn in before:
            if token := self._control.search(turn["content"]):
                raise RecordError(f"the text holds the control token {token.group()}")
        messages = [Message(turn["role"], turn["content"]) for turn in before]
        found = find_user_turn(self._render, messages, self._control, self._tokenizer.bos_token or "")
        ids = self._tokenizer(found.header, add_special_tokens=False)["input_ids"]
        return UserPrompt(tuple(ids), self._tokenizer.convert_tokens_to_ids(found.end))
