"""Records that call tools, from their file to the score of what a model learns to write: right with every template."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sft.answering.answer import Answer, written_answer
from sft.atomic_files import read_manifest
from sft.evaluation.judged_answers import expected_of, judge, scores_of
from sft.questions.question import Question
from sft.questions.question_set import UNREAD_CALLS
from sft.scoring.judge_prompt import judge_prompt
from tests.conftest import TokenizerDir
from tests.data.call_templates import FAMILIES
from tests.questions.asked import Asked, ask, config_of, write_records

TOOL = {"name": "look_up", "parameters": {"type": "object", "properties": {"word": {"type": "string"}}}}


def record(i: int) -> dict[str, object]:
    arguments = {"word": ["river", f"{i}", "a\nb"][i % 3], "limit": i, "exact": bool(i % 2)}
    calls = [{"type": "function", "function": {"name": "look_up", "arguments": arguments}}]
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    return {
        "messages": [{"role": "user", "content": f"What is {i}?"}, answer],
        "tools": [{"type": "function", "function": TOOL}],
    }


def made_with(template: str, folder: Path, model: Path, **evaluate: object) -> Asked:
    shutil.copytree(model, folder / "model")
    ended = FAMILIES[template].template.replace("<|return|>", "<|im_end|>").replace("<|start|>", "<|im_start|>")
    (folder / "model" / "chat_template.jinja").write_text(ended, encoding="utf-8")
    source = {"name": "s", "path": write_records(folder / "r.jsonl", [record(i) for i in range(30)]), "task": "calls"}
    room, packs = {"max_len_tokens": 1024}, {"pack_len_tokens": 1024, "packs_per_step": 2}
    return ask(config_of(folder, folder / "model", [source], data=room, train=packs, evaluate=evaluate))


def learned(made: Asked) -> dict[str, list[int]]:
    """Record → the tokens that the store has for its answer."""
    found = {}
    for i, number in enumerate(made.store.record_ids.tolist()):
        example = made.store.example(i)
        found[f"s/{number}"] = example.input_ids[example.loss_mask].tolist()
    return found


def scores_in_order(made: Asked, answers: Sequence[Answer]) -> list[float | None]:
    scores = scores_of(made.questions, made.config.evaluate)
    assert [score.name for score in scores.values()] == ["tool_call"]
    by_key = {answer.key: answer for answer in answers}
    return [one.score for one in judge(made.questions, by_key, scores, False, lambda: None)]


@pytest.mark.parametrize("template", ["name and JSON", "a mark for each", "Python without quoting"])
def test_what_is_learned_is_scored_as_right_and_the_rest_as_wrong(
    template: str, tmp_path: Path, tokenizer_dir: TokenizerDir
) -> None:
    made = made_with(template, tmp_path, tokenizer_dir("chatml"))
    own, tokenizer = learned(made), made.preparer.pipeline.tokenizer

    def answer_to(question: Question, record: str) -> Answer:
        return written_answer(question, own[record], True, tokenizer)

    right = [answer_to(question, question.record) for question in made.questions]
    assert scores_in_order(made, right) == [1.0] * len(made.questions) != []
    records = [question.record for question in made.questions]
    others = [answer_to(q, record) for q, record in zip(made.questions, records[1:] + records[:1], strict=True)]
    assert scores_in_order(made, others) == [0.0] * len(made.questions)
    assert made.folder is not None
    notes = read_manifest(made.folder)["notes"]
    assert any(UNREAD_CALLS in note for note in notes) != FAMILIES[template].is_derived
    assert all(
        answer.text in expected_of(question).references for answer, question in zip(right, made.questions, strict=True)
    )
    about: dict[str, Any] = {"rubric": "", "answer": "", "grades": [1, 2]}
    for question in made.questions:
        assert question.tools
        asked = judge_prompt("grade.j2", expected_of(question), **about)
        assert json.dumps(question.tools, ensure_ascii=False) in asked


def test_examples_that_call_tools_are_not_shown_as_text_without_their_calls(
    tmp_path: Path, tokenizer_dir: TokenizerDir
) -> None:
    made = made_with("name and JSON", tmp_path, tokenizer_dir("chatml"), shots=[0, 1], shots_as="text")
    assert {question.shots for question in made.questions} == {0}
    assert made.folder is not None
    left_out = read_manifest(made.folder)["left_out"]
    assert left_out == {
        "calls: examples that call tools cannot be shown as text, only as turns (evaluate.shots_as)": len(
            made.questions
        )
    }
