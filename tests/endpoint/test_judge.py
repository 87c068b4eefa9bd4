"""A served model as a judge: its grades, its nonsense, and that each is paid once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sft.answer_files import pairs_of
from sft.answering.answer import Answer
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience
from sft.errors import UserError
from sft.evaluation.judged_answers import judge
from sft.evaluation.pairs import judge_pairs, totals_of
from sft.questions.question import Question
from sft.scoring.judging import Judging
from sft.scoring.registry import read_score
from tests.endpoint.chat_server import chat_server

SAID = {
    "good": ('{"reason": "right", "grade": 5}', 1.0),
    "middling": ("It is fine, on the whole. I count 7 words. Grade: 3", 0.5),
    "poor": ('```json\n{"reason": "no", "grade": "1"}\n```', 0.0),
    "silent": ("I would rather not say.", None),
    "beyond": ('{"reason": "superb", "grade": 11}', None),
    "garbage": ("garbage", None),
    "empty": ("", None),
}


def question_of(name: str) -> Question:
    messages = ({"role": "user", "content": f"Say something {name}."},)
    return Question(
        f"s/{name}", 0, 0, "talk", "s", "s.jsonl", False, "generate", messages, (), "", (1,), 8, ("a reference",)
    )


QUESTIONS = [question_of(name) for name in SAID]
ANSWERS = {question.key: Answer(question.key, f"{question.record} answer {{{{ 1 }}}}") for question in QUESTIONS}


def grade(content: Mapping[str, Any]) -> str:
    prompt = content["messages"][0]["content"]
    assert "a reference" in prompt
    assert "brevity" in prompt
    assert "{{ 1 }}" in prompt  # an answer is no template
    return next(said for name, (said, _) in SAID.items() if f"Say something {name}." in prompt)


@pytest.mark.parametrize("structured", [True, False])
def test_grades_are_brought_to_a_share_and_nonsense_is_counted(tmp_path: Path, structured: bool) -> None:
    rubric = tmp_path / "rubric.md"
    rubric.write_text("What counts is brevity.")
    with chat_server(grade, structured=structured, seconds=0.1) as server:
        score = read_score({"name": "judge", "endpoint": server.url, "model": "tiny", "rubric": str(rubric)})
        kept = tmp_path / "base.replies.jsonl"
        for _ in range(2):
            judged = [*judge(QUESTIONS, ANSWERS, {"talk": score}, False, lambda: None, kept)]
        assert server.most_at_once >= 4
        answered = [one for one in server.asked if structured == ("response_format" in one)]
    assert [one.score for one in judged] == [value for _, value in SAID.values()]
    assert judged[0].note == "right"
    assert "no grade" in judged[3].note
    assert "11 is not from 1 to 5" in judged[4].note
    assert len(answered) == len(SAID)
    assert len(kept.read_text().splitlines()) == len(SAID)


def test_a_judge_that_is_away_is_refused_before_and_costs_its_examples_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sft.scoring.model_judge.JUDGE_PATIENCE", Patience(retries=0, most_in_vain=3))
    with chat_server(status=500) as server:
        score = read_score({"name": "judge", "endpoint": server.url, "model": "tiny"})
        judged = [*judge(QUESTIONS, ANSWERS, {"talk": score}, False, lambda: None)]
        other = read_score({"name": "judge", "endpoint": server.url, "model": "other"})
        with Judging(other) as judging, pytest.raises(EndpointError, match="has no model 'other'. It has tiny."):
            judging.check()
    assert {one.score for one in judged} == {None}
    assert "status 500" in judged[0].note
    with Judging(score) as judging, pytest.raises(EndpointError, match="nothing answers at"):
        judging.check()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"endpoint": "nowhere"}, "is no address of a server"),
        ({"endpoint": "http://me:secret@there/v1"}, "without user, password and query"),
        ({"scale": [5, 1]}, "no scale from the worst to the best"),
        ({"rubric": "missing.md"}, "missing.md.*cannot be read"),
    ],
)
def test_wrong_settings_are_said(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_score({"name": "judge", "endpoint": "http://127.0.0.1:8000/v1", "model": "m", **settings})


def test_pairs_are_judged_in_both_orders_and_a_disagreement_is_a_tie(tmp_path: Path) -> None:
    texts = {"good": ("fine", "bad"), "poor": ("bad", "fine"), "beyond": ("bad", "bad, too"), "empty": ("x", "x")}
    texts["good"] = ("<think>\nbad or fine?\n</think>\n\nfine", "<think>\nfine or bad?\n</think>\n\nbad")
    texts["empty"] = ("<think>\nperhaps x\n</think>\n\nx", "x")
    texts["silent"] = ("nothing", "bad")
    questions = [question_of(name) for name in texts]
    own, other = ({q.key: both[side] for q, both in zip(questions, texts.values(), strict=True)} for side in (0, 1))

    def prefer(content: Mapping[str, Any]) -> str:
        first, second = (content["messages"][0]["content"].split(f"answer_{name}>")[1] for name in "AB")
        if "nothing" in first + second:
            return "I am only a model."
        return json.dumps({"reason": "so", "better": "B" if "fine" in second else "A"})

    with chat_server(prefer) as server:
        client = EndpointClient(Endpoint(server.url, "tiny"))
        files = pairs_of(tmp_path / "one.json", tmp_path / "other.json")
        for _ in range(2):
            pairs = judge_pairs(questions, (own, other), client, "brevity", files, lambda: None)
        assert len(server.asked) == 2 * 4
    assert [pair.outcome for pair in pairs] == ["win", "loss", "tie", "tie", None]
    assert [json.loads(line)["outcome"] for line in files[0].read_text().splitlines()] == [
        pair.outcome for pair in pairs
    ]
    totals = totals_of(pairs)
    assert (totals.num_wins, totals.num_ties, totals.num_losses, totals.num_not_judged) == (1, 2, 1, 1)
    assert totals.rate.value == 0.5
    assert 0 <= totals.rate.low < 0.5 < totals.rate.high <= 1
