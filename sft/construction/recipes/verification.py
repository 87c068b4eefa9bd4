"""Which of several answers are right: those that agree with another one, or whose code passes tests in the sandbox."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from sft.errors import UserError
from sft.scoring.exact_match import ExactMatch
from sft.scoring.json_equal import JsonEqual
from sft.scoring.number import Number
from sft.scoring.scorer import Answer, Question, Scorer

if TYPE_CHECKING:
    from sft.scoring.judging import Judging

Comparison = Literal["numbers", "json", "exact"]
_SCORERS: dict[Comparison, tuple[Scorer, str]] = {
    "numbers": (Number(), "number"),
    "json": (JsonEqual(), "json_equal"),
    "exact": (ExactMatch(), "exact_match"),
}
"""How answers are compared, and the metric that says whether two agree."""


class Tests(NamedTuple):
    """What code has to pass, and what it may take."""

    tests: tuple[str, ...]
    setup_code: str
    seconds: float


def agreeing(compare: Comparison, answers: Sequence[str], reference: str) -> list[int] | None:
    """The numbers of those that agree with a reference; None where it has no number or no JSON."""
    scorer, metric = _SCORERS[compare]
    found = []
    for i, answer in enumerate(answers):
        verdict = scorer.judge(Answer(answer), Question(references=(reference,)))
        if verdict.failed:
            return None
        if verdict.scores[metric] == 1.0:
            found.append(i)
    return found


def largest_group(compare: Comparison, answers: Sequence[str]) -> list[int]:
    """The numbers of the most answers that agree with each other, the first such group; empty if none can be told."""
    return max((agreeing(compare, answers, answer) or [] for answer in answers), key=len, default=[])


def passing(answers: Sequence[str], tests: Tests) -> list[int] | None:
    """The numbers of those whose code passes; None where the tests cannot tell."""
    verdicts = [_passes(answer, tests) for answer in answers]
    return None if None in verdicts else [i for i, passes in enumerate(verdicts) if passes]


@lru_cache(maxsize=1)
def code_judging(seconds: float) -> "Judging":
    """What runs code, once it is proven that code cannot break out.

    Raises:
        UserError: it can.
    """
    # A config is read without what runs code.
    from sft.scoring.judging import Judging  # noqa: PLC0415
    from sft.scoring.registry import read_score  # noqa: PLC0415

    try:
        return Judging(read_score({"name": "code", "seconds": seconds}), allow_code=True)
    except UserError as error:
        raise UserError(f"verify: {str(error).removeprefix('score: code: ')}") from error


# A script is played again whenever the log is read.
@lru_cache(maxsize=1 << 14)
def _passes(answer: str, tests: Tests) -> bool | None:
    question = Question(tests=tests.tests, setup_code=tests.setup_code)
    verdict = code_judging(tests.seconds).judge(Answer(answer), question)
    return None if verdict.failed else verdict.scores["passed"] == 1.0
