"""The parts of a draft that filters look at: what is asked, what is answered, and what is compared with others."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sft.data.formats.messages import read_messages
from sft.draft import Draft
from sft.errors import RecordError
from sft.schema import Conversation, Message, RecordLocation
from sft.thoughts import without_thought

if TYPE_CHECKING:
    from sft.construction.recipes.recipe import Seed
    from sft.data.duplicates import RecordHashes

UNREADABLE = "training could not read it"
"""Why a draft is dropped by each filter that compares conversations."""

_NOWHERE = RecordLocation("", 1)


class DraftParts:
    """A draft, and what several filters need of it: made once, when the first one asks."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    @cached_property
    def conversation(self) -> Conversation | None:
        """As training would read it; None if it could not."""
        try:
            messages = read_messages({"messages": [*self.draft.messages]}, {})
        except RecordError:
            return None
        return Conversation(messages, self.draft.task, "", 0, _NOWHERE, self.draft.tools)

    @cached_property
    def hashed(self) -> "RecordHashes":
        """The hashes of the conversation, which there is."""
        from sft.data.duplicates import hash_record  # noqa: PLC0415  (a config is read without it)

        assert self.conversation is not None
        return hash_record(self.conversation)


def prompt_of(draft: Draft) -> str:
    """The first turn of the user."""
    return next((_text(m) for m in draft.messages if m.get("role") == "user"), "")


def answer_of(draft: Draft) -> str:
    """The last answer, without a thought in front of it."""
    return without_thought(next((_text(m) for m in reversed(draft.messages) if m.get("role") == "assistant"), ""))


def answers_of(draft: Draft) -> Iterator[str]:
    """All answers that are texts and not calls, without thoughts."""
    for message in draft.messages:
        if message.get("role") == "assistant" and not message.get("tool_calls"):
            yield without_thought(_text(message))


def has_calls(draft: Draft) -> bool:
    """Whether its last turn calls tools."""
    return bool(draft.messages) and bool(draft.messages[-1].get("tool_calls"))


def conversation_of_seed(seed: "Seed", task: str) -> Conversation:
    """As training reads it."""
    system = [Message("system", seed.system)] if seed.system else []
    messages = *system, Message("user", seed.prompt), Message("assistant", seed.answer)
    return Conversation(messages, task, "", 0, _NOWHERE)


def without_system(conversation: Conversation) -> Conversation:
    """Two questions under a long system text are no copies of each other."""
    spoken = tuple(message for message in conversation.messages if message.role != "system")
    return replace(conversation, messages=spoken)


def text_evidence(draft: Draft, name: str) -> str:
    """A text of the evidence; empty if there is none."""
    given = draft.evidence.get(name)
    return given if isinstance(given, str) else ""


def text_list_evidence(draft: Draft, name: str) -> list[str]:
    """The texts of a list of the evidence, or its only text."""
    given = draft.evidence.get(name)
    texts = [given] if isinstance(given, str) else given if isinstance(given, list | tuple) else []
    return [text for text in texts if isinstance(text, str) and text.strip()]


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
