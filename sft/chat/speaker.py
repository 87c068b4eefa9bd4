"""One model in a chat: what was said between it and the user, and how it goes on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sft.chat.prompts import ChatPrompts, Setting, messages_record
from sft.chat.reply import Reply, Unanswered
from sft.errors import RecordError
from sft.questions.prompts import Prompt
from sft.schema import JsonObject

WriteReply = Callable[[Prompt, str], Reply]
"""The reply to a prompt. What is drawn for it depends on the key."""


class Turn(NamedTuple):
    """A question and the reply to it."""

    number: int
    """Which question of the chat it is."""
    question: str
    reply: str


@dataclass
class Speaker:
    """A model that is talked to. Its own replies are its memory; it does not hear the other models."""

    name: str
    prompts: ChatPrompts
    write: WriteReply
    is_served: bool = False
    """Whether its replies come whole, from elsewhere."""
    turns: list[Turn] = field(default_factory=list)

    def ask(self, question: str, setting: Setting, key: str) -> Reply:
        """The reply to a question, behind all turns so far."""
        try:
            prompt = self.prompts.write(self._messages(setting, question), setting)
        except RecordError as error:
            return Unanswered(f"it cannot be asked: {error}")
        return self.write(prompt, key)

    def keep(self, turn: Turn, setting: Setting) -> str:
        """Remember a turn; returns why not, if it cannot be part of a conversation."""
        messages = [*self._messages(setting, turn.question), {"role": "assistant", "content": turn.reply}]
        try:
            self.prompts.check(messages, setting)
        except RecordError as error:
            return str(error)
        self.turns.append(turn)
        return ""

    def forget(self, number: int) -> None:
        """Forget the turn of this number, if it is the last one."""
        if self.turns and self.turns[-1].number == number:
            self.turns.pop()

    def record(self, setting: Setting) -> JsonObject | None:
        """The conversation as a record of the messages format; None where nothing was said."""
        if not self.turns:
            return None
        about = {"task": setting.task} if setting.task else {}
        return {**messages_record(self._messages(setting)), **about, "model": self.name}

    def _messages(self, setting: Setting, *questions: str) -> list[JsonObject]:
        said = [("system", setting.system)] if setting.system else []
        for turn in self.turns:
            said += [("user", turn.question), ("assistant", turn.reply)]
        said += [("user", question) for question in questions]
        return [{"role": role, "content": text} for role, text in said]
