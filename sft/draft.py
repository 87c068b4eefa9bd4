"""A record that a teacher has made, and where it comes from: one line of a file of constructed data.

{"id": "3f…", "messages": […], "task": "sorting", "provenance": {"recipe": "self_instruct", "teacher": "…", …}}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sft.json_lines import from_json
from sft.schema import JsonObject

_ID_CHARS = 24
_SHORT = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a record comes from; kept with it through training."""

    recipe: str
    teacher: str
    """Its model and server, without secrets, or the folder of a local model."""
    prompts: str
    """The fingerprint of the prompt templates that were used."""
    parameters: JsonObject = field(default_factory=dict)
    """What was asked for: temperature, most tokens, seed."""
    seeds: tuple[str, ...] = ()
    """The ids of the records that the teacher was shown."""
    requests: tuple[str, ...] = ()
    """Their names in the log, in order."""
    num_tokens: int = 0
    """Of all prompts and replies, as the server counts; 0 if it does not say."""
    cost: float | None = None
    """Of these tokens; None if no price is known."""
    made: str = ""
    """The day of the last reply, as YYYY-MM-DD."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What filters and judges measured."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A record that was made. Its conversation has the format `messages`."""

    messages: tuple[JsonObject, ...]
    task: str
    provenance: Provenance
    tools: tuple[JsonObject, ...] = ()
    evidence: JsonObject = field(default_factory=dict)
    """What verifiers and reviewers look at beside it: the passage, the tests, other answers."""

    @property
    def id(self) -> str:
        """Of what is trained, so an edited record is another one: 24 hexadecimal digits."""
        return record_id(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The content of a line."""
        content: dict[str, Any] = {"messages": list(self.messages), "task": self.task}
        if self.tools:
            content["tools"] = list(self.tools)
        if self.evidence:
            content["evidence"] = dict(self.evidence)
        # Not `asdict`, which copies all that is inside: it takes longer than all else here.
        provenance = {name: getattr(self.provenance, name) for name in Provenance.__dataclass_fields__}
        return {"id": record_id(content), **content, "provenance": provenance}


def read_draft(content: Mapping[str, Any]) -> Draft:
    """The inverse of `Draft.as_json`."""
    given = content["provenance"]
    provenance = from_json(Provenance, {**given, **{n: tuple(given.get(n, ())) for n in ("seeds", "requests")}})
    messages, tools = tuple(content["messages"]), tuple(content.get("tools", ()))
    return Draft(messages, content["task"], provenance, tools, content.get("evidence", {}))


def record_id(content: Mapping[str, Any]) -> str:
    """The id of a record with these messages, tools and task; nothing else of it counts."""
    trained = {name: content[name] for name in ("messages", "tools", "task") if content.get(name)}
    return sha256(_SHORT.encode(trained).encode()).hexdigest()[:_ID_CHARS]
