"""A stop does not wait for an evaluation that is due; it, and one that a kill has cost, is made up on resume."""

from pathlib import Path
from typing import Any

import pytest

from sft.checkpoint.local_storage import published_steps
from sft.config import SftConfig
from sft.run_events import read_events
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from tests.conftest import SmallRecords
from tests.distributed.launch import run_ranks
from tests.jobs import two_stage_job


@pytest.fixture
def job(tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path) -> dict[str, Any]:
    content = two_stage_job("run", tmp_path, tiny_model_dir, small_records, {"broad": 3, "words": 1})
    train = {**content["train"], "packs_per_step": 2}
    evaluate = {"every_steps": 1, "max_examples_per_task": 4}
    return {**content, "stages": content["stages"][:1], "train": train, "evaluate": evaluate}


def evaluated(run: RunFolder) -> list[str]:
    return sorted(path.stem for path in run.evaluations.glob("*.json"))


def test_what_a_stop_has_left_out_is_made_up(job: dict[str, Any]) -> None:
    config = SftConfig.model_validate(job)
    run = RunFolder(config.run.dir)
    again = (job, prepare_workload(config)[0].as_json())
    run.stop_file.touch()
    assert run_ranks(1, "run_jobs", {"jobs": [again]}) == [False]
    assert evaluated(run) == ["base"], "the stop came before the evaluation after step 1"
    run.stop_file.unlink()
    assert run_ranks(1, "run_jobs", {"jobs": [again]}) == [True]
    everything = ["0-broad", "0-broad-step-00000001", "0-broad-step-00000002", "base"]
    assert evaluated(run) == everything
    [resumed] = [event for event in read_events(run.attempt(2)) if event.kind == "resumed"]
    assert resumed.facts["step"] == 1, "no step was trained again for it"
    made_up = (run.evaluations / "0-broad-step-00000001.json").read_bytes()

    # As if a kill had come between the save and the evaluation: the same is measured.
    straight = {**job, "run": {"name": "straight", "dir": str(run.path.parent / "straight")}}
    workload = prepare_workload(SftConfig.model_validate(straight))[0].as_json()
    assert run_ranks(1, "run_jobs", {"jobs": [(straight, workload)]}) == [True]
    other = RunFolder(run.path.parent / "straight")
    assert evaluated(other) == everything
    assert (other.evaluations / "0-broad-step-00000001.json").read_bytes() == made_up


def test_a_stop_in_the_last_step_of_a_stage_leaves_its_end_to_the_next_start(job: dict[str, Any]) -> None:
    job = {**job, "stages": [{**job["stages"][0], "budget": {"steps": 1}}], "checkpoint": {"keep_stage_ends": False}}
    config = SftConfig.model_validate(job)
    run = RunFolder(config.run.dir)
    again = (job, prepare_workload(config)[0].as_json())
    run.stop_file.touch()
    assert run_ranks(1, "run_jobs", {"jobs": [again]}) == [False]
    stage = run.stage(0, "broad")
    assert not stage.model.exists()
    assert published_steps(stage.checkpoints) == [1]
    run.stop_file.unlink()
    assert run_ranks(1, "run_jobs", {"jobs": [again]}) == [True]
    assert stage.complete.is_file()
    assert evaluated(run) == ["0-broad", "base"]
    assert published_steps(stage.checkpoints) == []
