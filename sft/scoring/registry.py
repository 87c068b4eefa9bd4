"""All scorers by name, and the forms in which a config names one.

exact_match  |  {name: regex, pattern: "…"}  |  module:function   ──read_score──▶  Score
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from pydantic import ValidationError

from sft.config_words import did_you_mean
from sft.errors import UserError
from sft.scoring.bleu import Bleu
from sft.scoring.choice import ChoiceAccuracy
from sft.scoring.chrf import Chrf
from sft.scoring.code_tests import CodeTests
from sft.scoring.contains import Contains
from sft.scoring.exact_match import ExactMatch
from sft.scoring.json_equal import JsonEqual
from sft.scoring.length import Length
from sft.scoring.mathematics import Mathematics
from sft.scoring.model_judge import ModelJudge
from sft.scoring.number import Number
from sft.scoring.own_function import OWN, OwnFunction
from sft.scoring.regular_expression import RegularExpression
from sft.scoring.rouge import RougeL
from sft.scoring.scorer import Scorer
from sft.scoring.tool_call import ToolCallEqual


class ScorerKind(NamedTuple):
    """A scorer before its settings are known."""

    scorer: type[Any]
    """A `Scorer` that is built from its settings."""
    package: str = ""
    """The module that it imports when it judges; the extra `scores` installs it."""
    may_hang: bool = False
    """It can take minutes over some answers, so it runs in a process that can be ended."""
    runs_code: bool = False
    """It runs what a model wrote, and so only where that is allowed."""


SCORERS: Mapping[str, ScorerKind] = {
    "exact_match": ScorerKind(ExactMatch),
    "contains": ScorerKind(Contains),
    "choice": ScorerKind(ChoiceAccuracy),
    "number": ScorerKind(Number),
    "math": ScorerKind(Mathematics, "math_verify", may_hang=True),
    "rouge_l": ScorerKind(RougeL, "rouge_score.rouge_scorer", may_hang=True),  # its time is the product of both lengths
    "chrf": ScorerKind(Chrf, "sacrebleu"),
    "bleu": ScorerKind(Bleu, "sacrebleu"),
    "json": ScorerKind(JsonEqual),
    "tool_call": ScorerKind(ToolCallEqual),
    "regex": ScorerKind(RegularExpression, may_hang=True),
    "length": ScorerKind(Length),
    "code": ScorerKind(CodeTests, runs_code=True),
    "judge": ScorerKind(ModelJudge),
}
_OWN_KIND = ScorerKind(OwnFunction, may_hang=True)


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer with its settings, as a config names it."""

    name: str
    """That of the registry, or `module:function`."""
    scorer: Scorer
    kind: ScorerKind
    form: str | Mapping[str, Any]
    """What the config holds; JSON."""

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1, and more is better: only such scores are averaged over tasks."""
        first = next(iter(self.scorer.metrics.values()))
        return first.is_share and first.better == "higher"


def read_score(form: Any) -> Score:
    """The scorer that a config names; nothing is imported or started.

    Raises:
        UserError: there is none of this name, or its settings are wrong; names all of them.
    """
    if isinstance(form, str):
        name, settings = form, {}
    elif isinstance(form, Mapping) and isinstance(form.get("name"), str):
        name, settings = form["name"], {key: value for key, value in form.items() if key != "name"}
    else:
        raise UserError(
            f"score: {form!r} names no score. Give a name, such as `score: exact_match`, or a section with a name and "
            f'its settings, such as `score: {{name: regex, pattern: "yes|no"}}`.'
        )
    kind = SCORERS.get(name)
    if kind is None and re.match(OWN, name):
        kind, settings = _OWN_KIND, {"function": name, **settings}
    if kind is None:
        way_out = did_you_mean(name, [*SCORERS], "is it one of your own?")
        raise UserError(
            f"score: {name}: there is no score of this name; {way_out}\n"
            f"    Scores are {', '.join(SCORERS)}, and functions of your own, as `module:function`."
        )
    try:
        return Score(name, kind.scorer(**settings), kind, form)
    except ValidationError as error:
        raise UserError("\n".join(_problems(name, kind, error))) from None


def check_packages(*scores: Score) -> None:
    """Check that what these scores import is installed here; nothing is imported.

    Raises:
        UserError: names everything that is missing.
    """
    packages = {score.name: score.kind.package.partition(".")[0] for score in scores if score.kind.package}
    names = sorted(name for name, package in packages.items() if find_spec(package) is None)
    if names:
        missing = sorted({packages[name] for name in names})
        raise UserError(
            f"score: {', '.join(names)}: not installed here: {', '.join(missing)}. "
            f"Install with `pip install 'sft[scores]'`, or choose another score."
        )


def _problems(name: str, kind: ScorerKind, error: ValidationError) -> list[str]:
    fields = [*kind.scorer.model_fields]
    lines = []
    for problem in error.errors():
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "missing":
            lines.append(f"score: {name}: {field} is missing. Give it, as in `score: {{name: {name}, {field}: …}}`.")
        elif problem["type"] == "extra_forbidden":
            settings = did_you_mean(field, fields) if fields else "it has no settings"
            lines.append(f"score: {name}: there is no setting {field}; {settings}")
        else:
            text = problem["msg"].removeprefix("Value error, ")
            lines.append(f"score: {name}: {field} is {problem['input']!r}: {text}")
    return lines
