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
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_MADE_BY = ("recipe", "teacher")
"""The parts of a provenance that say that a teacher has made the record."""
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
        return str(self.as_json()["id"])

    def as_json(self) -> dict[str, Any]:
        """The content of a line."""
        trained: dict[str, Any] = {"messages": list(self.messages), "task": self.task}
        if self.tools:
            trained["tools"] = list(self.tools)
        evidence = {"evidence": dict(self.evidence)} if self.evidence else {}
        # Not `asdict`, which copies all that is inside: it takes longer than all else here.
        provenance = {name: getattr(self.provenance, name) for name in Provenance.__dataclass_fields__}
        return {"id": record_id(trained), **trained, **evidence, "provenance": provenance}


def read_draft(content: Mapping[str, Any]) -> Draft:
    """The inverse of `Draft.as_json`."""
    given = content["provenance"]
    provenance = from_json(Provenance, {**given, **{n: tuple(given.get(n, ())) for n in ("seeds", "requests")}})
    messages, tools = tuple(content["messages"]), tuple(content.get("tools", ()))
    return Draft(messages, content["task"], provenance, tools, content.get("evidence", {}))


def is_made(fields: JsonObject) -> bool:
    """Whether a teacher has made the record, as its provenance says."""
    provenance = fields.get("provenance")
    return isinstance(provenance, Mapping) and all(provenance.get(name) for name in _MADE_BY)


def record_id(trained: Mapping[str, Any]) -> str:
    """The id of a record by these fields of it; one that is empty is as good as none."""
    counts = {name: value for name, value in trained.items() if value not in _EMPTY}
    return sha256(_SHORT.encode(counts).encode()).hexdigest()[:_ID_CHARS]
