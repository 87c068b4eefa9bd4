"""A score that decides is one that will be measured; else nothing is trained, and all that is wrong is said."""

from pathlib import Path
from typing import Any

import pytest

from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.evaluation.forgetting import retained_tasks
from sft.training.prepared import Workload
from sft.training.workload import prepare_workload
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job


@pytest.fixture(scope="module")
def job(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("watched")
    content = two_stage_job("run", folder, tiny_model_dir, small_records, {"broad": 2, "words": 1})
    asked = {
        "answers_per_task": 2,
        "shots": [0, 1],
        # None that judges in a process of its own, whose start would take longer than all else here.
        "tasks": {
            "copy": {"score": "contains"},
            "sort": {"score": "length"},
            **{name: {"score": "exact_match"} for name in ("reverse", "count", "next")},
        },
    }
    return {**content, "evaluate": {"every_steps": 1, **asked}}


def prepared(job: dict[str, Any], best: Any = None, retain: Any = None, **data: Any) -> tuple[SftConfig, Workload]:
    content = {
        **job,
        "checkpoint": {"best": best},
        "evaluate": {**job["evaluate"], "retain": retain},
        "data": {**job["data"], **data},
    }
    config = SftConfig.model_validate(content)
    return config, prepare_workload(config)[0]


@pytest.mark.parametrize(
    ("best", "retain"),
    [
        ({"score": "loss"}, {"tasks": ["sort"], "sources": ["next"]}),
        ({"score": "score@1", "task": "reverse"}, {"tasks": ["copy"], "score": "contains"}),
        ({"score": "token_accuracy", "task": "copy"}, {"tasks": ["reverse"], "score": "score"}),
    ],
)
def test_what_is_measured_is_taken(job: dict[str, Any], best: Any, retain: Any) -> None:
    prepared(job, best, retain)


@pytest.mark.parametrize(
    ("best", "retain", "says"),
    [
        ({"score": "token_acuracy"}, None, ["best.score: token_acuracy is not measured", "mean `token_accuracy`?"]),
        ({"score": "score@3"}, None, ["score@3 is not measured in this run"]),
        ({"score": "answer_tokens"}, None, ["answer_tokens says nothing about better or worse"]),
        ({"score": "score", "task": "sort"}, None, ["score is not measured of the task sort"]),
        ({"score": "loss", "task": "copi"}, None, ["task copi is held out", "mean `copy`?"]),
        ({"score": "contains", "task": "sort"}, None, ["contains is not measured of the task sort"]),
        ({"score": "los"}, {"tasks": ["sorts"]}, ["checkpoint.best.score: los ", "evaluate.retain: no example of"]),
    ],
)
def test_what_is_not_is_said_at_once(job: dict[str, Any], best: Any, retain: Any, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        prepared(job, best, retain)
    for text in says:
        assert text in str(caught.value)


def test_without_held_out_data_nothing_can_be_the_best(job: dict[str, Any], tmp_path: Path) -> None:
    job = {**job, "run": {"name": "none", "dir": str(tmp_path)}, "evaluate": {"every_steps": 1}}
    with pytest.raises(UserError, match="nothing is held out"):
        prepared(job, {"score": "loss"}, holdout={"share": 0.0})


def test_a_source_is_the_tasks_of_its_held_out_examples(job: dict[str, Any]) -> None:
    config, workload = prepared(job, None, {"sources": ["words", "next"], "tasks": ["copy"]})
    assert workload.heldout is not None
    assert config.evaluate.retain is not None
    found = retained_tasks(config.evaluate.retain, TokenStore.open(workload.store), PackPlan.open(workload.heldout))
    assert found["task copy"] == ("copy",)
    assert found["source next"] == ("next",)
    assert "sort" in found["source words"]
    assert {*found["source words"]} <= {"copy", "reverse", "count", "sort"}
