"""A judge is compared with people: it grades the records' own answers, and sees nothing of their marks."""

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launcher.evaluation import evaluate_models
from sft.answer_files import marks_of
from sft.config import SftConfig
from sft.config_sources import GradingConfig
from sft.data.formats.grading import read_grading
from sft.endpoint.endpoint import Endpoint
from sft.errors import RecordError, UserError
from sft.evaluation.marks import agreements_of, grade_marked, mark_text, place_of
from sft.job_config import JobConfig
from sft.scoring.model_judge import ModelJudge
from sft.scoring.registry import read_score
from sft.training.whole_evaluation import prepare_measurement
from tests.conftest import WORDS
from tests.endpoint.chat_server import ChatServer, chat_server
from tests.questions.asked import config_of, write_records

LABELS = ("wrong", "partly right", "right")


def respond(content: Mapping[str, Any]) -> str:
    """Answers prompts; grades 4 where the number in a prompt is even, else 2; labels by the rest of a third."""
    prompt = str(content["messages"][-1]["content"])
    if "<answer>" not in prompt:
        return "of the server"
    number = int(re.findall(r"number (\d+)", prompt)[0])
    if "worst to the best" in prompt:
        return json.dumps({"reason": "so", "grade": LABELS[number % 3]})
    return "I decline." if number % 10 == 9 else f"Grade: {4 - 2 * (number % 2)}"


def config_with(folder: Path, model: Path, url: str) -> SftConfig:
    draw, records = random.Random(1), []
    for i in range(40):
        words = draw.sample(WORDS, 3)
        record = {"instruction": f"Say {' '.join(words)} of number {i}", "output": " ".join(words[::-1])}
        as_judged = i % 4 < 2
        marks = {"scale": [4, "2"][i % 2] if as_judged else 1, "label": LABELS[i % 3].upper() if i % 5 else "unsure"}
        task = "label" if i >= 20 else "scale"
        records.append({**record, "task": task, "mark": marks[task]})
    judge = {"name": "judge", "endpoint": url, "model": "tiny"}
    tasks = {"scale": {"score": judge}, "label": {"score": {**judge, "labels": [*LABELS]}}}
    source = {
        "name": "s",
        "path": write_records(folder / "s.jsonl", records),
        "task": {"column": "task"},
        "grading": {"marks": "mark"},
    }
    evaluate = {"answers_per_task": 40, "shots": [0, 1], "tasks": tasks}
    return config_of(folder, model, [source], evaluate=evaluate, data={"holdout": {"share": 0.6}})


@pytest.fixture(scope="module")
def server() -> Any:
    with chat_server(respond) as server:
        yield server


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, server: ChatServer) -> SftConfig:
    return config_with(tmp_path_factory.mktemp("marks"), tiny_model_dir, server.url)


def test_the_command_shows_how_far_judges_agree_with_people_and_asks_once(
    config: SftConfig, server: ChatServer
) -> None:
    console = Console(record=True, width=110, force_terminal=False)
    job = JobConfig(sft=config, lines={}, notes=())
    endpoint = Endpoint(server.url)
    assert evaluate_models(job, [], endpoint, console) == 0
    asked = len(server.asked)
    assert evaluate_models(job, [], endpoint, console) == 0
    measurement = prepare_measurement(config)
    assert measurement.asked is not None
    questions, scores = measurement.asked.questions, measurement.asked.scores
    assert len(server.asked) == asked, "what was said is kept"

    text = console.export_text()
    assert text.count("How far the judge agrees with people") == 2
    assert "weighted kappa" in text
    marked = [json.loads(line) for line in marks_of(measurement.folder)[0].read_text().splitlines()]
    assert len({one["record"] for one in marked}) == len(marked) == len({question.record for question in questions})
    own = [one for one in marked if one["task"] == "scale"]
    for one in own:
        number = int(one["record"].partition("/")[2])
        assert one["place"] == (None if number % 10 == 9 else 3 - 2 * (number % 2))
        assert float(one["mark"]) == ([4, 2][number % 2] if number % 4 < 2 else 1)

    again = grade_marked(questions, scores, marks_of(measurement.folder), lambda: None)
    found = {one.task: one for one in agreements_of(again, scores)}
    graded = [one for one in own if one["place"] is not None]
    assert found["scale"].num_not_graded == len(own) - len(graded)
    assert found["scale"].agreement.equal.value == pytest.approx(
        sum(one["place"] + 1 == float(one["mark"]) for one in graded) / len(graded)
    )
    labels = [one for one in marked if one["task"] == "label"]
    assert found["label"].num_unknown == sum(one["mark"] == "unsure" for one in labels) > 0
    assert found["label"].agreement.name == "kappa"
    assert found["label"].agreement.coefficient.value == 1

    page = (measurement.folder / "answers.html").read_text(encoding="utf-8")
    assert "How far the judge agrees with people" in page
    (data,) = re.findall('<script type="application/json" id="data">(.*)</script>\n', page)
    by_place = {tuple(row["marked"]) for row in json.loads(data)["rows"]}
    assert by_place == {(mark_text(one["mark"]), one["grade"], one["note"]) for one in marked}


def test_a_judge_sees_no_mark_and_no_answer_as_its_own_reference(config: SftConfig, server: ChatServer) -> None:
    measurement = prepare_measurement(config)
    assert measurement.asked is not None
    own = {question.references[0] for question in measurement.asked.questions}
    grades = [str(one["messages"][-1]["content"]) for one in server.asked]
    marked = [text for text in grades if text.partition("<answer>\n")[2].partition("\n</answer>")[0] in own]
    assert len(marked) >= len(own)
    assert not any("<reference>" in text or "unsure" in text for text in marked)


@pytest.mark.parametrize(
    ("mark", "settings", "place"),
    [
        (4.0, {}, 3.0),
        ("4", {}, 3.0),
        (50.0, {}, 49.0),
        ("good", {}, None),
        ("nan", {}, None),
        ("Right", {"labels": LABELS}, 2.0),
        (1.0, {"labels": ["0", "1"]}, 1.0),
        ("true", {"labels": ["false", "true"]}, 1.0),
        (3.0, {"labels": LABELS}, None),
    ],
)
def test_a_mark_is_a_grade_on_the_scale_or_a_label(mark: str | float, settings: dict[str, Any], place: Any) -> None:
    score = read_score({"name": "judge", "endpoint": "http://127.0.0.1:1/v1", "model": "m", **settings})
    assert isinstance(score.scorer, ModelJudge)
    assert place_of(mark, score.scorer) == place


def test_wrong_labels_and_marks_are_said(config: SftConfig) -> None:
    for labels in (["right"], ["right", "Right"], ["", "right"]):
        with pytest.raises(UserError, match="give two or more that differ"):
            read_score({"name": "judge", "endpoint": "http://127.0.0.1:1/v1", "model": "m", "labels": labels})
    [given] = config.data.sources
    source = given.model_copy(update={"grading": GradingConfig(marks="mark", rejected="worse")})
    with pytest.raises(RecordError, match="the field 'mark' holds .*, not a label or a number"):
        read_grading({"mark": {"a": 1}}, source)
    with pytest.raises(RecordError, match="the field 'worse' holds .*, not a text or a conversation"):
        read_grading({"mark": None, "worse": 3}, source)
    found = read_grading({"mark": True, "worse": [{"role": "assistant", "content": "x"}]}, source)
    assert (found.mark, found.rejected) == ("true", "x")
