"""What becomes of an evaluation by answers on real ranks: killed at a token, slow, hanging, judged by a wild scorer."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from sft.atomic_files import read_json
from sft.config import SftConfig
from sft.evaluation.judged_answers import read_judged
from sft.json_lines import whole_lines
from sft.run_events import read_events
from sft.run_folder import RunFolder
from sft.training.hang_watch import EXIT_HUNG
from sft.training.workload import prepare_workload
from tests.chaos.faults import Fault, Schedule
from tests.chaos.job import Job
from tests.chaos.slow_rank import run_slowly
from tests.conftest import SmallRecords
from tests.forked_ranks import DONE, zygote
from tests.jobs import two_stage_job

NAMES = ("base", "0-broad")


def content_of(folder: Path, model: Path, records: SmallRecords, **evaluate: Any) -> dict[str, Any]:
    content = two_stage_job("prepared", folder, model, records, {"broad": 2, "words": 1})
    data = {**content["data"], "holdout": {"share": 0.5, "tasks": ["sort"]}}
    asked = {"answers_per_task": 30, "shots": [0, 1], "max_new_tokens": 8, "tasks": {"copy": {"score": "contains"}}}
    return {**content, "stages": content["stages"][:1], "data": data, "evaluate": {**asked, **evaluate}}


def prepared(content: dict[str, Any], folder: Path) -> Job:
    return Job(content, prepare_workload(SftConfig.model_validate(content))[0].as_json(), folder)


@pytest.fixture(scope="module")
def job(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("asked")
    return prepared(content_of(folder, tiny_model_dir, small_records), folder)


@pytest.fixture(scope="module")
def undisturbed(job: Job) -> RunFolder:
    return job.run("undisturbed", Schedule(0, (2,), ()))


def kept(run: RunFolder) -> list[str]:
    """The answers of the evaluation under way, by their keys."""
    lines = [line for path in run.evaluations.glob(".*.partial") for line in whole_lines(path)]
    return [content["key"] for content in map(json.loads, lines) if "key" in content]


@pytest.mark.long
def test_killed_at_any_token_it_goes_on_with_the_answers_that_are_there(job: Job, undisturbed: RunFolder) -> None:
    """In each attempt one of two ranks is killed at a random token, until the last one comes to the end."""
    seed = 1
    rng, run = random.Random(seed), job.prepare("killed")
    faults = tuple(Fault(n, rng.choice([0, 1]), "evaluate", rng.randint(20, 45), "kill") for n in (1, 2, 3))
    schedule, before = Schedule(seed, (2,), faults), []
    for attempt in range(1, 8):
        if set(job.start(run.path.name, schedule, attempt)) == {DONE}:
            break
        now = kept(run)
        assert len(now) == len(set(now)), "nothing is asked twice"
        if now and before and set(now) & set(before):
            assert now[: len(before)] == before, "what was there stays"
        before = now
    assert job.struck(run.path.name)
    for name in NAMES:
        answers, wanted = ([*read_judged(each.evaluations / f"{name}.answers.jsonl")] for each in (run, undisturbed))
        assert answers == wanted
        path, other = (each.evaluations / f"{name}.json" for each in (run, undisturbed))
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.long
def test_an_evaluation_may_take_long_while_it_makes_progress_and_one_that_hangs_is_ended(job: Job) -> None:
    timeout, pause, stops_at = 15.0, 0.5, 46  # a busy machine stands still for nine seconds
    run = job.prepare("slow")
    content = {**job.content, "run": {"name": "slow", "dir": str(run.path)}}

    def start(attempt: int, pause: float, timeout: float, stops_at: int | None) -> list[int]:
        log = job.folder / f"slow-{attempt}"
        return zygote().start(run_slowly, 2, log, content, job.workload, pause, timeout, stops_at)

    codes = start(1, pause, timeout, stops_at)
    assert codes[0] == EXIT_HUNG
    assert read_json(run.evaluation())["loss"], "the base model was measured"
    [hung] = [event for event in read_events(run.attempt(1)) if event.kind == "hung"]
    assert "evaluate" in hung.facts["where"]
    assert "no sign of life from rank 1" in hung.text
    seconds = hung.time - min(event.time for event in read_events(run.attempt(1)))
    assert seconds > stops_at * pause > 1.5 * timeout, "it was left alone for as long as it went on"
    assert set(start(2, 0.0, 120.0, None)) == {DONE}


@pytest.mark.long
def test_a_scorer_that_raises_or_does_not_end_costs_its_answer(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    score = {"tasks": {"copy": {"score": "tests.chaos.wild_score:judge"}}, "answers_per_task": 4, "shots": [0]}
    job = prepared(content_of(tmp_path, tiny_model_dir, small_records, **score), tmp_path)
    calls = tmp_path / "calls"
    calls.mkdir()
    run = job._replace(variables={"WILD_SCORE_FOLDER": str(calls)}).run("wild", Schedule(0, (2,), ()))
    judged = [one for one in read_judged(run.evaluations / "base.answers.jsonl") if one.task == "copy"]
    assert [one.score for one in judged] == [None, None, 1.0, 1.0]
    assert "ZeroDivisionError" in judged[0].note
    assert judged[1].note
    for name, failed in zip(NAMES, (2, 0), strict=True):
        numbers = read_json(run.evaluations / f"{name}.json")["tasks"]["copy"]
        assert (numbers.get("num_not_judged", 0), numbers["num_judged"], numbers["judge"]) == (failed, 4 - failed, 1.0)
    shutil.rmtree(calls)
