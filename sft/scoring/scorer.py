"""What a scorer is: it judges one answer against what is known to be right for one question, and keeps no state.

    Answer, Question ──Scorer.judge──▶ Verdict: scores by name, and a short reason for people

A scorer is a frozen model whose fields are its settings, so a config is checked before anything is judged. The metrics
that it gives stand beside it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from sft.schema import JsonObject, ToolCall
from sft.scoring.metric import Metric

JUDGED = "num_judged"
"""The count that the metrics of scorers are means over: answers with a verdict that did not fail."""
ANSWERED = "num_answers"
"""The count of all answers, also of those that no verdict was reached on."""

Need = Literal["references", "options", "tests", "tool_calls or references", "nothing"]
"""What a question has to hold, so that a scorer can judge answers to it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote to one prompt."""

    text: str
    num_tokens: int = 0
    """Including the token that ended it."""
    stopped: bool = True
    """Whether the model ended it; False if it was cut at the most tokens allowed."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls that were read from it already; the text may hold others."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a record says of right answers to its prompt."""

    references: tuple[str, ...] = ()
    """Right answers, each good by itself."""
    options: tuple[str, ...] = ()
    """Answers to choose from; the references are among them."""
    tests: tuple[str, ...] = ()
    """Python statements, each of which raises if the code is wrong."""
    setup_code: str = ""
    """Python that runs after the answer's code and before its tests."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls to make, in any order."""
    record: JsonObject = field(default_factory=dict)
    """What was asked; for scorers of the user's own, with the record's fields."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scorer thinks of one answer."""

    scores: Mapping[str, float]
    """By the name of the metric; empty if it failed."""
    note: str = ""
    """A short reason for people, such as "no number in the answer"."""
    failed: bool = False
    """There is no verdict, for no fault of the answer: it is counted, and no part of any mean."""


class Scorer(Protocol):
    """Judges answers."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What its scores mean, by name."""
        ...

    @property
    def needs(self) -> Need:
        """What a question has to hold."""
        ...

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """The verdict on an answer to a question that holds what is needed. What it raises costs this example only."""
        ...


class Settings(BaseModel):
    """A scorer's settings as they are in a config: immutable, and unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    needs: ClassVar[Need] = "references"


def failure(reason: str) -> Verdict:
    """No verdict could be reached."""
    return Verdict({}, reason, failed=True)


def what_is_missing(needs: Need, question: Question) -> str:
    """Why answers to this question cannot be judged by a scorer with these needs; empty if they can."""
    if needs == "nothing" or any(getattr(question, part) for part in needs.split(" or ")):
        return ""
    return f"the record has no {needs.replace('_', ' ')}"


def best(compare: Callable[[str], float], references: Iterable[str]) -> float:
    """The best score over the references: each is a right answer by itself."""
    return float(max((compare(reference) for reference in references), default=0.0))


def same_text(answer: str, reference: str) -> bool:
    """Whether these are the same but for white space around them: then every comparison of texts gives its most."""
    return answer.strip() == reference.strip()


def as_json(value: Answer | Question | Verdict) -> dict[str, Any]:
    """The same as a JSON object, as far as its record is one."""
    content = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if "tool_calls" in content:
        content["tool_calls"] = [[call.name, dict(call.arguments)] for call in content["tool_calls"]]
    return content


def answer_of(content: Mapping[str, Any]) -> Answer:
    """The answer that `as_json` wrote."""
    return Answer(**{**content, "tool_calls": _calls(content)})


def question_of(content: Mapping[str, Any]) -> Question:
    """The question that `as_json` wrote."""
    texts = {name: tuple(content[name]) for name in ("references", "options", "tests")}
    return Question(**{**content, **texts, "tool_calls": _calls(content)})


def _calls(content: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(name, arguments) for name, arguments in content["tool_calls"])
