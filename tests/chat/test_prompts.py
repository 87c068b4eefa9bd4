"""The prompts of a chat are those of training, to the token; its conversations are records that can be trained on."""

import random
from pathlib import Path

import pytest

from sft.chat.prompts import ChatPrompts, Setting
from sft.chat.reply import Piece, ThoughtMarks
from sft.chat.speaker import Speaker, Turn
from sft.config import SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.errors import RecordError
from sft.questions.question_set import stop_ids_of
from tests.conftest import WORDS, TokenizerDir
from tests.questions.asked import ask, config_of, write_records

TURNS = [
    {"role": "user", "content": "Copy the words."},
    {"role": "assistant", "content": "amber basin"},
    {"role": "user", "content": "Once more, in reverse."},
]


def of_template(tmp_path: Path, tokenizer: Path, **data: object) -> SftConfig:
    path = write_records(tmp_path / "r.jsonl", [{"messages": [*TURNS[:2]]}])
    return config_of(tmp_path, tokenizer, [{"name": "s", "path": path}], data=data)


def test_they_are_the_questions_of_a_run_and_end_at_the_same_tokens(
    tmp_path: Path, tokenizer_dir: TokenizerDir
) -> None:
    draw = random.Random(3)
    records = [
        {"instruction": f"{task}: {' '.join(draw.sample(WORDS, 3))}", "output": draw.choice(WORDS), "task": task}
        for task in ("say", "turn")
        for _ in range(30)
    ]
    sources = [{"name": "s", "path": write_records(tmp_path / "s.jsonl", records), "task": {"column": "task"}}]
    config = config_of(tmp_path, tokenizer_dir("chatml"), sources, data={"task_tag": {"dropout": 0.5}})
    asked = ask(config)
    assert asked.folder is not None
    prompts = ChatPrompts(config)
    for question in asked.questions:
        turns = [message for message in question.messages if message["role"] == "user"]
        prompt = prompts.write(turns, Setting(task=question.task, tagging="as_trained"))
        assert (prompt.ids, prompt.text) == (question.prompt_ids, question.prompt)
    assert {"Task type:" in question.prompt for question in asked.questions} == {True, False}
    assert set(prompts.stop_ids) == set(stop_ids_of(asked.folder))


@pytest.mark.parametrize("template", ["chatml", "default_system", "headers", "inst", "think", "trim_earlier", "phi"])
def test_they_are_those_of_the_template_over_several_turns(
    tmp_path: Path, tokenizer_dir: TokenizerDir, template: str
) -> None:
    config = of_template(tmp_path, tokenizer_dir(template))
    tokenizer = load_tokenizer(config.model)
    prompts = ChatPrompts(config)
    for turns in (TURNS[:1], TURNS):
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert prompts.write(turns, Setting()).text == text
    with_system = prompts.write([{"role": "system", "content": "Be brief."}, *TURNS[:1]], Setting()).text
    assert "Be brief." in with_system


def test_what_training_refuses_is_refused_and_a_tag_is_set_by_its_rule(
    tmp_path: Path, tokenizer_dir: TokenizerDir
) -> None:
    prompts = ChatPrompts(of_template(tmp_path, tokenizer_dir("chatml"), task_tag={"texts": {"sum": "Summarise."}}))
    always = Setting(task="sum", tagging="always")
    assert "<|im_start|>system\nTask type: Summarise.<|im_end|>" in prompts.write(TURNS, always).text
    assert "Summarise." not in prompts.write(TURNS, Setting(task="sum", tagging="never")).text
    for text in ("a <|im_start|> b", "\x1b[2J", "\udc80"):
        with pytest.raises(RecordError):
            prompts.write([{"role": "user", "content": text}], always)


def test_a_reply_that_no_record_may_hold_is_not_remembered(tmp_path: Path, tokenizer_dir: TokenizerDir) -> None:
    prompts = ChatPrompts(of_template(tmp_path, tokenizer_dir("chatml")))
    speaker = Speaker("base", prompts, lambda prompt, key: pytest.fail("not asked"))
    setting = Setting(system="Be brief.", task="say")
    assert speaker.record(setting) is None
    assert "U+0007" in speaker.keep(Turn(1, "Hello?", "a\x07b"), setting)
    assert speaker.keep(Turn(2, "Hello?", "Yes."), setting) == ""
    assert "<|im_end|>" in speaker.keep(Turn(3, "Hello?", "a <|im_end|> b"), setting)
    said = [("system", "Be brief."), ("user", "Hello?"), ("assistant", "Yes.")]
    messages = [{"role": role, "content": content} for role, content in said]
    assert speaker.record(setting) == {"messages": messages, "task": "say", "model": "base"}
    speaker.forget(1)
    assert len(speaker.turns) == 1
    speaker.forget(2)
    assert not speaker.turns
    refused = speaker.ask("<|im_start|>", setting, "key")
    assert refused.has_failed
    assert "it cannot be asked: the special token '<|im_start|>'" in refused.note


@pytest.mark.parametrize("step", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("text", "is_open", "thought"),
    [
        ("<think>\nWell.\n</think>\n\nYes.", False, "<think>\nWell.\n</think>"),
        ("Well.\n</think>\n\nYes.", True, "Well.\n</think>"),
        ("<think>\nWell", False, "<think>\nWell"),
        ("<thi", False, ""),
        ("<things> and </think> are words", False, ""),
        ("Yes. <think> No. </think>", False, ""),
    ],
)
def test_what_is_thought_is_told_from_what_is_said(step: int, text: str, is_open: bool, thought: str) -> None:
    marks = ThoughtMarks(is_open)
    pieces: list[Piece] = []
    for start in range(0, len(text), step):
        pieces += marks.split(text[start : start + step])
    pieces += marks.split("", is_last=True)
    assert "".join(piece.text for piece in pieces) == text
    assert "".join(piece.text for piece in pieces if piece.is_thought) == thought
