"""The forms of a score in a config, and the score of a task that names none."""

import subprocess
import sys
from importlib.machinery import PathFinder

import pytest

from sft.errors import UserError
from sft.schema import ToolCall
from sft.scoring.default_score import default_score
from sft.scoring.registry import SCORERS, check_packages, read_score
from sft.scoring.scorer import Question


@pytest.mark.parametrize(
    ("form", "reasons"),
    [
        ("rouge-l", ["no score of this name", "did you mean `rouge_l`?", "exact_match, contains"]),
        ("accuracy", ["no score of this name", "module:function"]),
        (5, ["5 names no score", "score: exact_match"]),
        ({"pattern": "a"}, ["names no score"]),
        ({"name": "regex"}, ["regex: pattern is missing"]),
        (
            {"name": "regex", "pattern": "(", "hole": True},
            ["pattern is '(': is not a regular expression", "no setting hole; did you mean `whole`?"],
        ),
        ({"name": "number", "tolerance": -1}, ["tolerance is -1: Input should be greater than or equal to 0"]),
        ({"name": "exact_match", "normalise": True}, ["no setting normalise; did you mean `normalize`?"]),
        ({"name": "json", "strict": True}, ["it has no settings"]),
        ("not a:function", ["no score of this name"]),
    ],
)
def test_a_wrong_form_is_answered_with_all_problems(form, reasons):
    with pytest.raises(UserError) as error:
        read_score(form)
    assert [reason for reason in reasons if reason not in str(error.value)] == []


NEEDED = {"regex": {"pattern": "a"}, "judge": {"endpoint": "http://127.0.0.1:8000/v1", "model": "m"}}
"""Settings that have no default."""


def test_every_scorer_declares_metrics_whose_count_is_known():
    for name in SCORERS:
        score = read_score({"name": name, **NEEDED.get(name, {})})
        assert score.scorer.metrics
        for metric in score.scorer.metrics.values():
            assert metric.over in ("num_judged", "num_answers")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PathFinder, "find_spec", lambda *_: None)
    for module in ("rouge_score", "sacrebleu"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(UserError, match=r"bleu, rouge_l: not installed here: rouge_score, sacrebleu.*sft\[scores\]"):
        check_packages(read_score("rouge_l"), read_score("bleu"), read_score("json"))


def test_reading_scores_imports_nothing_heavy():
    code = (
        "import sys, sft.scoring.judging, sft.scoring.default_score\n"
        "heavy = ('torch', 'transformers', 'ray', 'nltk', 'sacrebleu', 'sympy', 'math_verify')\n"
        "sys.exit(' '.join(name for name in heavy if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == ""


def texts(*references: str) -> list[Question]:
    return [Question((reference,)) for reference in references]


LONG = "a sentence of more words than five"


@pytest.mark.parametrize(
    ("questions", "name"),
    [
        (texts("Paris", "New York"), "exact_match"),
        (texts(LONG, LONG), "rouge_l"),
        (texts(*["short"] * 9, LONG), "exact_match"),
        (texts("42", "$1,000", "so\n#### 3"), "number"),
        (texts("so\n#### 72\nThe answer is: 72"), "number"),
        (texts("#### 1\nA text below a heading of level 4"), "rouge_l"),
        (texts("42", "many"), "exact_match"),
        (texts('{"a": 1}', "[1, 2]"), "json"),
        (texts('{"name": "f", "arguments": {}}'), "tool_call"),
        (texts('[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]'), "tool_call"),
        (texts('I look.\n<tool_call>\n{"name": "f"}\n</tool_call>'), "tool_call"),
        (texts('{"name": "Ann", "age": 3}'), "json"),
        (texts('{"name": "Ann"}', '[{"name": "Bob"}, {"name": "Cid"}]'), "json"),
        (texts('{"name": "Ann", "function": {"name": "boss"}}'), "json"),
        (texts('{"name": "f", "description": "adds", "parameters": {"type": "object"}}'), "json"),
        (texts('```json\n{"a": 1}\n```'), "json"),
        (texts("[1] is the source of all that is told here"), "rouge_l"),
        (texts("#### What it is\nA text below a heading of level 4"), "rouge_l"),
        (texts("1,000", "-3.5", ".5", "3/4", "50 %", "0", "1,234,567.25"), "number"),
        (texts("1.2.2020"), "exact_match"),
        (texts("4,5,3"), "exact_match"),
        (texts("01234"), "exact_match"),
        ([Question(tool_calls=(ToolCall("f", {}),))], "tool_call"),
        ([Question(("yes",), ("yes", "no"))], "choice"),
        ([Question(("x = 1",), tests=("assert x",))], "code"),
        ([Question(), Question()], "length"),
        ([], "length"),
    ],
)
def test_the_default_fits_the_kind_of_the_references(questions, name):
    assert default_score(questions, allow_code=True).name == name


def test_tests_that_may_not_run_are_said_to_be_left_out():
    for questions, name in (([Question((LONG,), tests=("x",))], "rouge_l"), ([Question(tests=("x",))], "length")):
        chosen = default_score(questions, allow_code=False)
        assert chosen.name == name
        assert "not run unless `allow_code` is true" in chosen.why
