"""A scorer that raises, hangs, ends or takes all memory costs its example."""

from pathlib import Path

import pytest

from sft.errors import UserError
from sft.schema import ToolCall
from sft.scoring.judging import Judging, JudgingLimits
from sft.scoring.registry import read_score
from sft.scoring.scorer import Answer, Question, answer_of, as_json, question_of

OWN = """
import os, time
def score(answer, references, record):
    print("whatever is printed", flush=True)
    if answer == "raise":
        raise KeyError("nothing there")
    if answer == "hang":
        time.sleep(100)
    if answer == "end":
        os._exit(3)
    if answer == "memory":
        return len(bytearray(2 << 30))
    if answer == "several":
        return {"first": 1, "second": record["weight"]}
    if answer == "nan":
        return float("nan")
    return answer in references
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_score.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_next_answer_is_judged_whatever_the_users_function_did():
    limits = JudgingLimits(seconds=1.0, memory_mib=1024)
    with Judging(read_score("my_score:score"), limits) as judging:
        for text, reason in (
            ("raise", "KeyError: 'nothing there'"),
            ("hang", "no verdict within 1 seconds"),
            ("end", "ended with exit code 3"),
            ("memory", "MemoryError"),
            ("nan", "is nan, which is no score"),
        ):
            verdict = judging.judge(Answer(text), Question(("a",)))
            assert verdict.failed
            assert reason in verdict.note
            assert judging.judge(Answer("a"), Question(("a",))).scores == {"my_score:score": 1.0}
        several = judging.judge(Answer("several"), Question(("a",), record={"weight": 0.5}))
        assert several.scores == {"my_score:score": 1.0, "first": 1.0, "second": 0.5}


@pytest.mark.parametrize(
    ("scale", "given", "score"),
    [
        ([0, 1], True, 1.0),
        ([0, 10], 5, 0.5),
        (None, 300, 300.0),
        ([0, 10], {"words": 7, "graded": 10}, 1.0),
        ([0, 1], 7, "7 is not on the scale from 0 to 1"),
        ([0, 1], {"loss": 0.5}, "loss: this name means something else here"),
        ([0, 1], {}, "it returned no number"),
    ],
)
def test_a_score_of_the_users_lies_on_its_scale_whatever_comes_out(monkeypatch, scale, given, score):
    monkeypatch.setattr("sft.scoring.own_function.load_function", lambda name: lambda *_: given)
    own = read_score({"name": "my_score:graded", "scale": scale})
    assert own.is_share == (scale is not None)
    if isinstance(score, str):
        with pytest.raises(ValueError, match=score):
            own.scorer.judge(Answer("a"), Question())
    else:
        assert own.scorer.judge(Answer("a"), Question()).scores["graded"] == score
        assert [*own.scorer.metrics] == ["graded"], "its name is known before it is called"


def test_a_catastrophic_pattern_costs_its_example():
    with Judging(read_score({"name": "regex", "pattern": "(a+)+$"}), JudgingLimits(seconds=0.5)) as judging:
        assert judging.judge(Answer("a" * 50 + "b"), Question()).failed
        assert judging.judge(Answer("aaa"), Question()).scores == {"regex": 1.0}


def test_a_scorer_that_never_judges_is_given_up():
    with Judging(
        read_score({"name": "regex", "pattern": "(a+)+$"}), JudgingLimits(seconds=0.001, most_in_vain=2)
    ) as judging:
        notes = [judging.judge(Answer("a" * 50 + "b"), Question()).note for _ in range(3)]
        assert "not judged" not in notes[1]
        assert "2 answers in a row got no verdict" in notes[2]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("form", "reason"),
    [("my_score:missing", "my_score.py has no function missing"), ("no_such:score", "cannot be imported")],
)
def test_a_function_that_is_not_there_is_refused_before_anything_is_judged(form, reason):
    with pytest.raises(UserError, match=reason):
        Judging(read_score(form))


def test_what_a_question_lacks_is_said():
    for form, needs in (("exact_match", "no references"), ("choice", "no options"), ("tool_call", "tool calls")):
        verdict = Judging(read_score(form)).judge(Answer("a"), Question())
        assert verdict.failed
        assert needs in verdict.note


def test_code_is_off_unless_it_is_asked_for():
    with pytest.raises(UserError, match="allow_code: true"):
        Judging(read_score("code"))


def test_answers_and_questions_pass_between_processes():
    calls = (ToolCall("f", {"x": [1]}),)
    answer, question = Answer("a", 3, False, calls), Question(("r",), ("o",), ("t",), "s", calls, {"k": 1})
    assert answer_of(as_json(answer)) == answer
    assert question_of(as_json(question)) == question
