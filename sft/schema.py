"""The immutable types that data passes through, one for each hop.

    Block ──decode──▶ Record ──format──▶ Conversation ──render, tokenize──▶ Example ──pack──▶ Pack ──collate──▶ Batch

`sft.data.reading.sources` makes and decodes `Block`s.

`Batch` holds tensors and so is in `sft.data.collate`; nothing here needs torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

JsonObject = Mapping[str, Any]
Role = Literal["system", "user", "assistant", "tool"]
THOUGHT_START, THOUGHT_END = "<think>\n", "\n</think>\n\n"
"""The marks around a thought in the text of an answer."""
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought")
"""The names of the field for an answer's thoughts in templates and in what servers send, the most common first."""

IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]


class RecordLocation(NamedTuple):
    """Where people can look a record up."""

    file: str
    number: int
    """The number of the line, or of the record if the file has no lines, from 1."""
    is_line: bool = True
    instance: int | None = None
    """The number of the instance in a record with several, from 1."""

    def __str__(self) -> str:
        """The form that editors and people know: `file:line`."""
        place = f"{self.file}:{self.number}" if self.is_line else f"{self.file}, record {self.number}"
        return place if self.instance is None else f"{place}, instance {self.instance}"


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source as it was read: its fields and where people can look it up."""

    source: str
    index: int
    """The number of the row in its source, from 0. Instances of one row share it."""
    where: RecordLocation
    fields: JsonObject


@dataclass(frozen=True, slots=True)
class ToolCall:
    """An answer that calls a tool."""

    name: str
    arguments: JsonObject
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Assistant turns are learned, unless `train` is False or the mask rule of the config says otherwise."""

    role: Role
    content: str
    train: bool = True
    tool_calls: tuple[ToolCall, ...] = ()
    """In assistant turns: follow the content, which may then be empty."""
    call_id: str | None = None
    """In tool turns: the call that they answer."""
    thought: str = ""
    """In assistant turns: the thought before the answer."""

    @property
    def full_text(self) -> str:
        """Thought and content in one text, in the form that most data uses."""
        return f"{THOUGHT_START}{self.thought}{THOUGHT_END}{self.content}" if self.thought else self.content


@dataclass(frozen=True, slots=True)
class Conversation:
    """A record in the common form of all formats: the turns, and the task they belong to."""

    messages: tuple[Message, ...]
    task: str
    source: str
    index: int
    where: RecordLocation
    tools: tuple[JsonObject, ...] = ()
    """JSON schemas of the tools that the assistant may call."""
    is_repaired: bool = field(default=False, compare=False)
    """Whether turns that were out of order were repaired; see `data.turns`."""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation as token ids; `loss_mask` is True where a token is learned, and False at position 0."""

    input_ids: IntArray  # (num_tokens,)
    loss_mask: BoolArray  # (num_tokens,)

    def __post_init__(self) -> None:
        """Check the invariants that the loss relies on."""
        assert self.input_ids.shape == self.loss_mask.shape
        # Nothing predicts position 0. If it were supervised, the shift in the loss would predict it from the example
        # before it in the pack.
        assert not self.loss_mask[:1].any(), "loss_mask[0] must be False"


@dataclass(frozen=True, slots=True)
class Pack:
    """Examples laid end to end in one row; `cu_seqlens` are the boundaries that attention does not cross."""

    pack_id: int
    example_ids: IntArray  # (num_segments,)
    input_ids: IntArray  # (num_tokens,)
    loss_mask: BoolArray  # (num_tokens,)
    cu_seqlens: IntArray  # (num_segments + 1,), first 0, last num_tokens


@dataclass(frozen=True, slots=True)
class TokenizedRecord:
    """A record that came as token ids: there is nothing to render."""

    example: Example
    task: str
    source: str
    index: int
    where: RecordLocation


LeftOutKind = Literal["bad", "too long", "duplicate", "near duplicate"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is left out, and why."""

    source: str
    index: int
    where: RecordLocation
    reason: str
    kind: LeftOutKind = "bad"
    task: str | None = None
    """None if not known: an unreadable record has no task."""
