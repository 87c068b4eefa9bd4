"""A case: a prompt as training sees it, and the messages from which a server has to make the same one."""

from dataclasses import asdict, dataclass
from typing import Any

from sft.schema import JsonObject


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared, as tokens and as messages."""

    name: str
    """For people: where it comes from, or what is difficult about it."""
    ids: tuple[int, ...]
    """The prompt and an answer, as training learns them."""
    start: int
    """Where the answer's tokens begin."""
    prompt_ids: tuple[int, ...]
    """What the model goes on from when it writes: in most cases `ids[:start]`."""
    messages: tuple[JsonObject, ...] = ()
    """The turns in the form that the template reads; none where they are not known."""
    openai_messages: tuple[JsonObject, ...] = ()
    """The turns in OpenAI's form, for a server."""
    tools: tuple[JsonObject, ...] = ()
    max_new_tokens: int = 32

    def as_json(self) -> dict[str, Any]:
        """What the plain process gets."""
        return asdict(self)
