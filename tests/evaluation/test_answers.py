"""A run asks its model whenever it is measured: scores by task, every answer kept, the same after a kill."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sft.answer_files import answers_of, replies_of
from sft.answering.answer import chosen_answer
from sft.answering.asking import Ask, KeepAnswers
from sft.config import SftConfig
from sft.data.record_pipeline import RecordPipeline
from sft.data.rendering.chat_template import load_tokenizer
from sft.errors import UserError
from sft.evaluation.answer_evaluator import AnswerEvaluator
from sft.evaluation.judged_answers import read_judged
from sft.evaluation.report import write_report
from sft.evaluation.scores import Sums, read_evaluation
from sft.parity.cases import asked_cases
from sft.printable import printable
from sft.questions.question import Option, Question
from sft.questions.question_set import fingerprint_of, open_questions
from sft.ranks.ranks import OneRank
from sft.run_folder import RunFolder
from sft.scoring.registry import read_score
from sft.training.whole_evaluation import WholeModelPath, measure_whole, model_here, models_of, prepare_measurement
from sft.training.workload import prepare_workload
from tests.conftest import SmallRecords, write_tokenizer
from tests.distributed.launch import run_ranks
from tests.endpoint.chat_server import ChatServer, chat_server
from tests.jobs import two_stage_job


@pytest.fixture(scope="module")
def judge() -> Iterator[ChatServer]:
    with chat_server(lambda content: "Grade: 4") as server:
        yield server


@pytest.fixture(scope="module")
def job(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory, judge: ChatServer
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("answers")
    content = two_stage_job("run", folder, tiny_model_dir, small_records, {"broad": 2, "words": 1})
    return {
        **content,
        "stages": content["stages"][:1],
        "data": {**content["data"], "holdout": {"share": 0.2, "tasks": ["sort"]}},
        "train": {**content["train"], "packs_per_step": 2},
        "evaluate": {
            "answers_per_task": 3,
            "shots": [0, 1],
            "max_new_tokens": 6,
            "tasks": {
                "copy": {"score": "contains"},
                "reverse": {"max_answers": 0},
                # No process that judges: its start would take longer than the answers.
                **{name: {"score": "exact_match"} for name in ("count", "next")},
                "sort": {"score": {"name": "judge", "endpoint": judge.url, "model": "tiny"}},
            },
        },
    }


@pytest.fixture(scope="module")
def run(job: dict[str, Any]) -> RunFolder:
    config = SftConfig.model_validate(job)
    assert run_ranks(1, "run_jobs", {"jobs": [(job, prepare_workload(config)[0].as_json())]}) == [True]
    return RunFolder(config.run.dir)


@pytest.mark.parametrize("name", ["base", "0-broad"])
def test_every_question_has_its_answer_and_scores_are_their_means(run: RunFolder, name: str) -> None:
    path = run.evaluations / f"{name}.json"
    judged = list(read_judged(answers_of(path)))
    questions = open_questions(run.questions)
    assert [one.key for one in judged] == [question.key for question in questions]
    assert "reverse" not in {one.task for one in judged}
    assert {one.score_name for one in judged if one.task == "copy"} == {"contains"}
    evaluation = read_evaluation(json.loads(path.read_text()), None, None)
    for task in {one.task for one in judged}:
        for shots, suffix in ((0, ""), (1, "@1")):
            own = [one.score for one in judged if (one.task, one.shots) == (task, shots)]
            assert evaluation.value(f"score{suffix}", task) == pytest.approx(sum(own) / len(own))
            assert evaluation.tasks[task].numbers[f"num_answers{suffix}"] == len(own)
    assert evaluation.tasks["sort"].unseen
    assert evaluation.value("loss") > 0
    assert not list(run.evaluations.glob("*.partial"))
    assert {one.score for one in judged if one.task == "sort"} == {0.75}
    assert replies_of(answers_of(path)).is_file()


def test_the_report_and_the_page_of_answers_hold_what_was_answered(run: RunFolder) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert "What was learned: scores of answers" in html
    page = run.answers_page.read_text(encoding="utf-8")
    (data,) = re.findall('<script type="application/json" id="data">(.*)</script>\n', page)
    rows = json.loads(data)["rows"]
    questions = open_questions(run.questions)
    assert [row["prompt"] for row in rows] == [printable(question.prompt) for question in questions]
    judged = list(read_judged(answers_of(run.evaluation())))
    assert [row["answers"][0][:2] for row in rows] == [
        [printable(one.answer.text), one.score and round(one.score, 4)] for one in judged
    ]


def test_an_evaluation_that_was_killed_goes_on_with_the_answers_that_are_there(
    job: dict[str, Any], run: RunFolder, tmp_path: Path
) -> None:
    """Answers that another model would not give show that they were not asked for again."""
    job = {**job, "run": {"name": "killed", "dir": str(tmp_path / "killed")}}
    config = SftConfig.model_validate(job)
    workload = prepare_workload(config)[0].as_json()
    killed = RunFolder(config.run.dir)
    stage = killed.stage(0, "broad")
    path = run.evaluation(run.stage(0, "broad"))
    about = {"questions": fingerprint_of(killed.questions), "model": path.stem}
    first, second, *_ = read_judged(answers_of(path))
    kept = [{**one.answer.as_json(), "text": "kept"} for one in (first, second)]
    partial = killed.evaluations / f".{answers_of(path).name}.partial"
    partial.write_text("".join(json.dumps(line) + "\n" for line in (about, *kept)) + '{"key": "cut', encoding="utf-8")
    assert run_ranks(1, "run_jobs", {"jobs": [(job, workload)]}) == [True]
    found = list(read_judged(answers_of(killed.evaluation(stage))))
    assert [one.answer.text for one in found[:2]] == ["kept", "kept"]
    undisturbed = list(read_judged(answers_of(path)))
    assert [one.answer for one in found[2:]] == [one.answer for one in undisturbed[2:]]


@pytest.mark.parametrize(("wanted", "stem"), [("base", "base"), ("broad", "0-broad")])
def test_a_whole_model_gives_the_answers_that_it_gave_within_the_training(
    job: dict[str, Any], run: RunFolder, wanted: str, stem: str
) -> None:
    config = SftConfig.model_validate(job)
    measurement = prepare_measurement(config)
    assert open_questions(measurement.folder / "questions") == open_questions(run.questions)
    [model] = models_of(config, [wanted])
    found = measure_whole(config, measurement, model, model_here, lambda: None)
    path = run.evaluations / f"{stem}.json"
    within = read_evaluation(json.loads(path.read_text()), model.stage_index, None)
    own = list(read_judged(answers_of(measurement.result_of(model))))
    for one, other in zip(own, read_judged(answers_of(path)), strict=True):
        assert (one.key, one.answer.text, one.scores) == (other.key, other.answer.text, other.scores)
    assert found.tasks.keys() == within.tasks.keys()
    for task, scores in within.tasks.items():
        assert found.tasks[task].numbers == pytest.approx(scores.numbers, rel=1e-4)


def test_questions_are_cases_of_the_check_of_an_export(job: dict[str, Any], run: RunFolder) -> None:
    """The folder's own template writes the very prompts that the run asks."""
    config = SftConfig.model_validate(job)
    tokenizer: Any = load_tokenizer(config.model)
    cases = asked_cases(run.questions, RecordPipeline(config.data, config.model), [2])
    assert len(cases) == 8
    assert len({case.name.partition(",")[0] for case in cases}) > 1
    for case in cases:
        told = {"add_generation_prompt": True, "return_dict": True}
        assert tuple(tokenizer.apply_chat_template(list(case.messages), **told)["input_ids"]) == case.prompt_ids
        assert case.ids[: case.start] == case.prompt_ids
        assert case.ids[-1] == 2
        assert case.max_new_tokens == 6


def test_a_folder_that_is_named_from_here_is_found_by_workers_elsewhere(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(job["model"]["path"])
    monkeypatch.chdir(path.parent)
    (model,) = models_of(SftConfig.model_validate(job), [path.name])
    assert (model.name, model.path) == (path.name, str(path))


def test_what_cannot_be_measured_is_said(job: dict[str, Any], run: RunFolder, tmp_path: Path) -> None:
    config = SftConfig.model_validate({**job, "run": {"name": "new", "dir": str(tmp_path / "new")}})
    with pytest.raises(UserError, match="broad: this stage of .* has no model yet. No stage is finished."):
        models_of(config, ["broad"])
    other = tmp_path / "other"
    write_tokenizer(other, "gpt2")
    with pytest.raises(UserError, match="has other tokens than .*, so its prompts are others"):
        models_of(config, [str(other)])
    nothing = {**job["data"], "holdout": {"share": 0.0}}
    with pytest.raises(UserError, match="no example is held out"):
        prepare_measurement(SftConfig.model_validate({**job, "data": nothing}))


@pytest.mark.parametrize(
    ("score", "told"),
    [
        ("code", "it runs code that the model writes, which is off unless it is asked for"),
        ("nowhere:at_all", "nowhere"),
    ],
)
def test_a_score_that_cannot_judge_here_is_refused_before_anything_is_trained(
    job: dict[str, Any], tmp_path: Path, score: str, told: str
) -> None:
    content = {**job, "run": {"name": "refused", "dir": str(tmp_path / "refused")}}
    content["evaluate"] = {**job["evaluate"], "tasks": {"copy": {"score": score}}}
    with pytest.raises(UserError, match=told):
        prepare_workload(SftConfig.model_validate(content))


def test_a_model_that_was_written_anew_is_another_one(tmp_path: Path) -> None:
    model = WholeModelPath("broad", str(tmp_path), 0)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    name = model.file_name
    assert model.file_name == name
    assert name.startswith("0-broad-")
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert model.file_name != name


@pytest.mark.parametrize(
    ("likelihoods", "score"),
    [
        ((math.nan, -2.0, -1.0), 0.0),
        ((math.nan, -1.0, -2.0), 1.0),
        ((-math.inf, -1.0, -2.0), 1.0),
        ((math.nan,) * 3, 0.0),
    ],
)
def test_an_option_without_a_likelihood_is_never_chosen_also_after_a_kill(
    tmp_path: Path, likelihoods: tuple[float, ...], score: float
) -> None:
    """What is kept of it is JSON that every reader takes."""
    options = tuple(Option((1, 2, 3), 1) for _ in likelihoods)
    question = Question(
        "s/0", 0, 0, "t", "s", "s:1", False, "choice", (), (), "?", (1,), 8, ("b",), ("a", "b", "c"), options
    )
    path = tmp_path / "base.answers.jsonl"

    def measure(ask: Ask) -> Sums:
        scores = {"t": read_score("choice")}
        return AnswerEvaluator(ask, [question], scores, OneRank(), path, {"model": "m"}).measure()

    def killed(questions: Sequence[Question], keep: KeepAnswers) -> None:
        keep([chosen_answer(asked, likelihoods) for asked in questions])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(killed)
    for line in (tmp_path / ".base.answers.jsonl.partial").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    sums = measure(lambda questions, keep: pytest.fail("it has an answer"))["t"]
    assert (sums["accuracy"], sums["accuracy_by_token"], sums["accuracy_by_byte"]) == (score, score, score)
    [judged] = read_judged(path)
    known = [value if math.isfinite(value) else math.nan for value in likelihoods]
    assert judged.answer.likelihoods == pytest.approx(known, nan_ok=True)
