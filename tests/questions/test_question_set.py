"""Questions: the very prompts of training, examples that give nothing away, and everything counted."""

import json
import random
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft.answering.answer import Answer
from sft.answering.asking import Ask, KeepAnswers
from sft.atomic_files import read_manifest
from sft.config import SftConfig
from sft.data.planning.holdout import held_out_examples
from sft.errors import UserError
from sft.evaluation.answer_evaluator import AnswerEvaluator
from sft.evaluation.judged_answers import expected_of, read_judged, scores_of
from sft.evaluation.scores import Sums
from sft.questions.choosing import giving_nothing_away
from sft.questions.question import Question
from sft.ranks.ranks import OneRank
from sft.schema import Conversation, Message, RecordLocation
from tests.conftest import WORDS, TokenizerDir
from tests.questions.asked import Asked, ask, config_of, write_records


def records_of(task: str, count: int, seed: int) -> list[dict[str, object]]:
    draw = random.Random(seed)
    records = []
    for i in range(count):
        words = draw.sample(WORDS, 3)
        record = {"instruction": f"{task}: say {' '.join(words)}", "input": str(i), "output": " ".join(words[::-1])}
        records.append({**record, "task": task})
    return records


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("records")
    records = [r for i, task in enumerate(("turn", "copy", "rare")) for r in records_of(task, 30, i)]
    return [{"name": "s", "path": write_records(folder / "s.jsonl", records), "task": {"column": "task"}}]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: TokenizerDir, sources: list) -> Asked:
    config = config_of(
        tmp_path_factory.mktemp("asked"),
        tokenizer_dir("chatml"),
        sources,
        data={"holdout": {"share": 0.3, "tasks": ["rare"]}, "task_tag": {"dropout": 0.5}},
        evaluate={"shots": [0, 1, 3], "tasks": {"copy": {"max_answers": 2, "shots": [0]}}},
    )
    return ask(config)


def test_a_prompt_without_shots_is_that_of_the_stored_example(asked: Asked) -> None:
    held_out = held_out_examples(asked.store, asked.config.data.holdout)
    by_record = {f"s/{number}": i for i, number in enumerate(asked.store.record_ids.tolist()) if held_out[i]}
    plain = [question for question in asked.questions if question.shots == 0]
    for question in plain:
        example = asked.store.example(by_record[question.record])
        start = int(np.flatnonzero(example.loss_mask)[0])
        assert list(question.prompt_ids) == example.input_ids[:start].tolist()
        words = asked.preparer.pipeline.tokenizer.words_of(example.input_ids[start:].tolist())
        assert question.references == (words,)
    assert len(plain) == len({question.record for question in plain}) == 4 + 2 + 4
    tagged = ["Task type:" in question.prompt for question in plain]
    assert 0 < sum(tagged) < len(tagged)


def test_shots_are_of_the_task_of_the_right_side_and_never_the_record_itself(asked: Asked) -> None:
    held_out = held_out_examples(asked.store, asked.config.data.holdout)
    tokenizer = asked.preparer.pipeline.tokenizer
    prompts = {True: set(), False: set()}
    for i in range(len(asked.store)):
        text = tokenizer.text_of(asked.store.example(i).input_ids.tolist())
        prompts[bool(held_out[i])].add(text.partition("<|im_start|>user\n")[2].partition("<|im_end|>")[0])
    by_key = {question.key: question for question in asked.questions}
    with_shots = [question for question in asked.questions if question.shots]
    assert {question.task for question in with_shots} == {"turn", "rare"}
    for question in with_shots:
        turns = [m for m in question.messages if m["role"] != "system"]
        assert len(turns) == 2 * question.num_shown + 1
        shown = [turn["content"] for turn in turns[:-1:2]]
        assert turns[-1]["content"] not in shown
        assert len(set(shown)) == len(shown)
        assert all(text.startswith(f"{question.task}:") for text in shown)
        assert set(shown) <= prompts[question.unseen]
        assert question.unseen == (question.task == "rare")
        alone = by_key[f"{question.record}@0"]
        assert alone.messages[-1] == turns[-1] | {}
        assert alone.references == question.references
    for question in with_shots:
        if question.shots == 3:
            first = [m["content"] for m in by_key[f"{question.record}@1"].messages if m["role"] != "system"][:2]
            assert first == [m["content"] for m in question.messages if m["role"] != "system"][:2]


def test_shots_as_text_are_in_the_one_user_turn(
    asked: Asked, tmp_path: Path, sources: list, tokenizer_dir: TokenizerDir
) -> None:
    config = config_of(
        tmp_path, tokenizer_dir("chatml"), sources, evaluate={"shots": [2], "shots_as": "text", "answers_per_task": 1}
    )
    for question in ask(config).questions:
        (turn,) = question.messages
        assert turn["content"].count(f"{question.task}: say") == 3
        assert turn["content"].endswith(question.prompt.removesuffix("<|im_end|>\n<|im_start|>assistant\n")[-20:])


def test_shots_that_do_not_fit_are_cut_and_counted(tmp_path: Path, sources: list, tokenizer_dir: TokenizerDir) -> None:
    tokens = {"max_len_tokens": 96, "holdout": {"share": 0.3}}
    config = config_of(tmp_path, tokenizer_dir("chatml"), sources, data=tokens, evaluate={"shots": [20]})
    made = ask(config)
    assert made.questions
    for question in made.questions:
        assert question.num_shown < 20
        assert len(question.prompt_ids) + question.max_new_tokens <= 96
    (no_room,) = read_manifest(made.folder)["fewer_shots"].items()
    assert no_room == ("no more fit in data.max_len_tokens=96", len(made.questions))


def test_answers_with_less_room_are_counted_by_task(tmp_path: Path, sources: list, tokenizer_dir: TokenizerDir) -> None:
    evaluate = {"shots": [0], "max_new_tokens": 90}
    config = config_of(tmp_path, tokenizer_dir("chatml"), sources, data={"max_len_tokens": 96}, evaluate=evaluate)
    made = ask(config)
    expected = []
    for task in dict.fromkeys(question.task for question in made.questions):
        wished = config.evaluate.new_tokens(task)
        rooms = [q.max_new_tokens for q in made.questions if q.task == task and q.max_new_tokens < wished]
        least, most = min(rooms), max(rooms)
        expected.append((f"{task}: {len(rooms)} answer", f"{least} to {most}" if least < most else f"{least}"))
    notes = read_manifest(made.folder)["notes"]
    assert all(a in note and b in note for (a, b), note in zip(expected, notes, strict=True)), notes


def test_shots_that_are_not_there_are_not_said_to_lack_room(tmp_path: Path, tokenizer_dir: TokenizerDir) -> None:
    records = [{"instruction": f"Say {word}", "output": word} for word in WORDS[:12]]
    source = {"name": "few", "path": write_records(tmp_path / "r.jsonl", records)}
    made = ask(config_of(tmp_path, tokenizer_dir("chatml"), [source], evaluate={"shots": [12]}))
    assert read_manifest(made.folder)["fewer_shots"] == {"there are no more for their task": len(made.questions)}


def test_the_same_config_asks_the_same_and_other_settings_ask_anew(
    tmp_path: Path, sources: list, tokenizer_dir: TokenizerDir
) -> None:
    config = config_of(tmp_path, tokenizer_dir("chatml"), sources)
    first = ask(config)
    (first.folder / "questions.jsonl").touch()
    made_at = (first.folder / "manifest.json").stat().st_mtime_ns
    again = ask(config)
    assert again.questions == first.questions
    assert (again.folder / "manifest.json").stat().st_mtime_ns == made_at
    other = ask(config_of(tmp_path, tokenizer_dir("chatml"), sources, evaluate={"answers_per_task": 2}))
    assert {q.key for q in other.questions} < {q.key for q in first.questions}


def test_what_answers_are_measured_by_comes_with_the_question(tmp_path: Path, tokenizer_dir: TokenizerDir) -> None:
    records = [
        {
            "instruction": f"Is {i} even?",
            "output": ["yes", "no"][i % 2],
            "options": ["yes", "no"],
            "also": [f"{i % 2}"],
            "test_list": [f"assert {i} == {i}"],
            "test_setup_code": ["", "import math"][i % 2],
        }
        for i in range(20)
    ]
    source = {"name": "even", "path": write_records(tmp_path / "r.jsonl", records), "grading": {"references": "also"}}
    made = ask(config_of(tmp_path, tokenizer_dir("chatml"), [source], evaluate={"answers_per_task": 3}))
    tokenizer = made.preparer.pipeline.tokenizer
    for question in made.questions:
        number = int(question.record.partition("/")[2])
        assert question.options == ("yes", "no")
        assert question.references == (["yes", "no"][number % 2], str(number % 2))
        assert question.tests == (f"assert {number} == {number}",)
        assert question.setup_code == expected_of(question).setup_code == ["", "import math"][number % 2]
        assert question.way == "choice"
        for option, text in zip(question.choices, question.options, strict=True):
            assert tuple(option.ids[: option.start]) == question.prompt_ids
            assert tokenizer.text_of(option.ids[option.start :]) == f"{text}<|im_end|>"


OWN = """
def fits(answer, references, record):
    assert record["where"].endswith(f"record {record['nested'][0] + 1}"), record
    assert record["source"] == "s" and record["prompt"].startswith("<|im_start|>"), record
    assert "day" not in record, record
    return len(answer) <= record["most_chars"]
"""


def test_a_function_of_the_users_gets_the_records_own_fields(
    tmp_path: Path, tokenizer_dir: TokenizerDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of answers that a killed evaluation has kept. The questions of other tasks hold no fields."""
    (tmp_path / "own_fits.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    records = [
        {"instruction": f"Say {i}", "output": "a", "task": ["own", "plain"][i % 2], "most_chars": i, "nested": [i]}
        for i in range(40)
    ]
    days = pa.array([datetime(2026, 1, 1)] * 40)
    pq.write_table(pa.Table.from_pylist(records).append_column("day", days), tmp_path / "r.parquet")
    source = {"name": "s", "path": str(tmp_path / "r.parquet"), "task": {"column": "task"}}
    made = ask(
        config_of(
            tmp_path,
            tokenizer_dir("chatml"),
            [source],
            evaluate={"answers_per_task": 3, "tasks": {"own": {"score": "own_fits:fits"}}},
        )
    )
    assert {question.task: sorted(question.fields) for question in made.questions} == {
        "own": ["instruction", "most_chars", "nested", "output", "task"],
        "plain": [],
    }
    scores, path = scores_of(made.questions, made.config.evaluate), tmp_path / "a.answers.jsonl"

    def measure(ask: Ask) -> Sums:
        return AnswerEvaluator(ask, made.questions, scores, OneRank(), path, {"model": "m"}).measure()

    def killed(questions: Sequence[Question], keep: KeepAnswers) -> None:
        keep([Answer(question.key, "x" * 20) for question in questions])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(killed)
    measure(lambda questions, keep: pytest.fail("all have an answer"))
    own = [one for one in read_judged(path) if one.task == "own"]
    assert len(own) == 3
    for one in own:
        assert (one.score, one.note) == (float(int(one.record.partition("/")[2]) >= 20), "")


def test_a_model_that_learns_to_think_first_writes_its_choice(tmp_path: Path, tokenizer_dir: TokenizerDir) -> None:
    yes = {"options": ["yes", "no"]}
    thoughts = ["", "<think>\nit is\n</think>\n\n", "<think>it is</think>"]  # the last one stays in the content
    records = [
        {"instruction": f"Is {i} even?", "output": f"{thoughts[i % 3]}yes", "also": f"{thoughts[i % 3]}no", **yes}
        for i in range(20)
    ]
    source = {"name": "even", "path": write_records(tmp_path / "r.jsonl", records)}
    source["grading"] = {"references": "also", "rejected": "also"}
    data = {"holdout": {"share": 0.7}}
    made = ask(config_of(tmp_path, tokenizer_dir("chatml"), [source], data=data, evaluate={"answers_per_task": 20}))
    ways = {(int(q.record.partition("/")[2]) % 3, q.way, q.thinks) for q in made.questions}
    assert ways == {(0, "choice", False), (1, "generate", True), (2, "generate", True)}
    assert {(*question.references, question.rejected) for question in made.questions} == {("yes", "no", "no")}
    assert all(bool(question.choices) == (question.way == "choice") for question in made.questions)


def test_an_answer_that_is_not_among_its_options_is_counted(tmp_path: Path, tokenizer_dir: TokenizerDir) -> None:
    records = [
        {"instruction": f"Is {i} even?", "output": "yes" if i % 2 else "maybe", "options": ["yes", "no"]}
        for i in range(20)
    ]
    source = {"name": "even", "path": write_records(tmp_path / "r.jsonl", records)}
    made = ask(config_of(tmp_path, tokenizer_dir("chatml"), [source], evaluate={"answers_per_task": 20}))
    (reason,) = read_manifest(made.folder)["left_out"]
    assert "'maybe' is not among its options" in reason
    assert all(question.references[0] == "yes" for question in made.questions)
    left_out = read_manifest(made.folder)["left_out"][reason]
    assert left_out + len(made.questions) == held_out_examples(made.store, made.config.data.holdout).sum()


def test_no_option_is_longer_than_what_the_model_is_trained_on(tmp_path: Path, tokenizer_dir: TokenizerDir) -> None:
    records = [
        {
            "instruction": f"Is {i} even?",
            "output": "yes",
            "options": ["yes", " ".join(WORDS[:8] * (15 if i % 2 else 1))],
        }
        for i in range(20)
    ]
    source = {"name": "even", "path": write_records(tmp_path / "r.jsonl", records)}
    config = config_of(tmp_path, tokenizer_dir("chatml"), [source], evaluate={"answers_per_task": 20, "shots": [6]})
    made = ask(config.model_copy(update={"data": config.data.model_copy(update={"max_len_tokens": 128})}))
    assert made.questions
    assert all(len(option.ids) <= 128 for question in made.questions for option in question.choices)
    assert any(0 < question.num_shown < 6 for question in made.questions)
    (reason,) = read_manifest(made.folder)["left_out"]
    assert "with its longest option it has" in reason


def test_all_outputs_of_a_task_file_are_references_and_its_examples_are_shown(
    tmp_path: Path, tokenizer_dir: TokenizerDir
) -> None:
    task = {
        "Definition": ["Name a bird."],
        "Positive Examples": [{"input": "small", "output": "wren", "explanation": "it is"}],
        "Negative Examples": [],
        "Instances": [{"id": str(i), "input": f"case {i}", "output": ["owl", "eagle"]} for i in range(20)],
        "Categories": ["birds"],
    }
    path = tmp_path / "task1_birds.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    source = {"name": "sni", "path": str(path), "task": "birds"}
    made = ask(config_of(tmp_path, tokenizer_dir("chatml"), [source], evaluate={"shots": [0, 1]}))
    assert made.questions
    for question in made.questions:
        assert question.references == ("owl", "eagle")
        if question.shots:
            assert [turn["content"] for turn in question.messages[:2]] == ["Name a bird.\n\nsmall", "wren"]


def test_an_unknown_task_is_refused_with_its_neighbour(
    tmp_path: Path, sources: list, tokenizer_dir: TokenizerDir
) -> None:
    config = config_of(tmp_path, tokenizer_dir("chatml"), sources, evaluate={"tasks": {"tern": {}}})
    with pytest.raises(UserError, match=r"evaluate.tasks: there is no task 'tern' in the data. Did you mean 'turn'"):
        ask(config)


def test_nothing_is_asked_unless_the_config_says_so(tmp_path: Path, sources: list, tokenizer_dir: TokenizerDir) -> None:
    config: SftConfig = config_of(tmp_path, tokenizer_dir("chatml"), sources, evaluate={"answers_per_task": 0})
    assert ask(config).folder is None


def chat(*turns: str) -> Conversation:
    """Texts of system, user, assistant, user …"""
    system, *others = turns
    messages = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(others)]
    return Conversation((Message("system", system), *messages), "t", "s", 0, RecordLocation("f", 1))


def test_no_example_holds_the_question_whatever_its_system_text() -> None:
    asked = chat("You are bot 0.", "Hello", "Hi", "What is  IT?", "code")
    same = [chat("You are bot 1.", "What is it?", "code"), chat("", "Well", "Yes?", "what is it?", "code")]
    others = [chat("You are bot 1.", "What is that?", "a"), chat("You are bot 2.", "Where is it?", "b")]
    repeated = chat("You are bot 3.", "Where IS it?", "c")
    assert [*giving_nothing_away(asked, [same[0], *others, same[1], repeated])] == others
