"""A question: a held-out prompt as a model gets it at inference, and what its answer is measured by."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sft.json_lines import from_json, whole_lines
from sft.schema import JsonObject, ToolCall
from sft.scoring.call_form import Expected
from sft.scoring.tool_call import calls_in

QUESTIONS = "questions.jsonl"
"""The file in the published folder of questions."""

Way = Literal["generate", "choice"]
"""How a question is answered: the model writes, or the most probable of the options is its answer."""


class Option(NamedTuple):
    """An answer to choose, behind its prompt, as a model would learn it."""

    ids: tuple[int, ...]
    """The tokens of prompt and answer."""
    start: int
    """Where those begin whose likelihood counts: the answer, and the end of the turn."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; one record is asked once for each number of shots."""

    record: str
    """Identifies the record: `source/number`, or `source/number/instance`."""
    shots: int
    """How many examples were to be shown with it."""
    num_shown: int
    """How many fit in front of it."""
    task: str
    source: str
    where: str
    """Where people can look the record up."""
    unseen: bool
    """Whether no stage of the run trains on its task."""
    way: Way
    messages: tuple[JsonObject, ...]
    """The turns in OpenAI's form, for a server; none for a record that came as token ids."""
    tools: tuple[JsonObject, ...]
    prompt: str
    """The text that the model goes on from."""
    prompt_ids: tuple[int, ...]
    """The same as tokens."""
    max_new_tokens: int
    references: tuple[str, ...]
    """Right answers, the record's own first."""
    options: tuple[str, ...] = ()
    """The answers to choose from."""
    choices: tuple[Option, ...] = ()
    """The options as tokens, in the same order, if the question is answered by `choice`."""
    tests: tuple[str, ...] = ()
    """Python code that raises if an answer is wrong."""
    setup_code: str = ""
    """Python code that these tests need."""
    mark: str | float | None = None
    """What people think of the record's own answer."""
    rejected: str = ""
    """An answer that people like less than that."""
    tool_calls: tuple[JsonObject, ...] = ()
    """The calls of the right answer: name and arguments each."""
    thinks: bool = False
    """Whether the record's own answer has a thought in front."""
    fields: JsonObject = field(default_factory=dict)
    """The record's own, for a function of the user's that scores the answers of its task; else none."""
    written: str = ""
    """The right answer as the template writes it, where its calls cannot be read from that; else empty."""

    @property
    def key(self) -> str:
        """Names the question among those of a run."""
        return f"{self.record}@{self.shots}"

    @property
    def expected(self) -> Expected:
        """What reads the calls in an answer."""
        calls = tuple(ToolCall(call["name"], call["arguments"]) for call in self.tool_calls)
        in_references = () if calls else (call for text in self.references for call in calls_in(text))
        return Expected((*calls, *in_references), self.tools, next(iter(self.references), ""), self.written)

    def as_json(self) -> dict[str, Any]:
        """The line in the file of questions."""
        return asdict(self)


_TUPLES = ("messages", "tools", "prompt_ids", "references", "options", "tests", "tool_calls")


def read_question(content: Mapping[str, Any]) -> Question:
    """The inverse of `as_json`."""
    choices = tuple(Option(tuple(ids), start) for ids, start in content["choices"])
    return from_json(Question, {**content, **{name: tuple(content[name]) for name in _TUPLES}, "choices": choices})


def questions_in(folder: Path) -> Iterator[Question]:
    """The published questions, those of a task together; one at a time, since they hold long prompts."""
    return (read_question(json.loads(line)) for line in whole_lines(folder / QUESTIONS))
