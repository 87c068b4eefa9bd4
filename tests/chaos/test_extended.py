"""A finished run is extended: more budget for its last stage, and a stage behind it. Nothing that was fed changes.

Killed meanwhile, it is as good as if it never had been.
"""

import shutil

import numpy as np
import pytest

from sft.atomic_files import hash_file
from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.evaluation.report import render_report
from sft.evaluation.run_records import read_run
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from sft.verification.run_check import verify_run
from tests.chaos.faults import Fault, Schedule
from tests.chaos.job import MOST_ATTEMPTS, NUM_STEPS, Job
from tests.forked_ranks import DONE

NUM_STEPS_NOW = {"broad": 4, "words": 18, "late": 3}


def extended(job: Job, finished: RunFolder, name: str, faults: tuple[Fault, ...] = ()) -> RunFolder:
    """A copy of a finished run, with more steps of its last stage and one behind it, trained to its end."""
    run = RunFolder(job.folder / name)
    shutil.copytree(finished.path, run.path)
    broad, words = job.content["stages"]
    more = {**words, "budget": {"steps": NUM_STEPS_NOW["words"]}, "optimizer": {"lr": 2e-4, "schedule": "linear"}}
    late = {
        "name": "late",
        "mixture": {"tasks": ["count"], "replay": {"broad": 0.3, "words": 0.2}},
        "budget": {"steps": NUM_STEPS_NOW["late"]},
        "optimizer": {"lr": 1e-4},
    }
    content = {**job.content, "stages": [broad, more, late], "run": {"name": name, "dir": str(run.path)}}
    workload, _store, _plans = prepare_workload(SftConfig.model_validate(content))
    goes_on = job._replace(content=content, workload=workload.as_json())
    schedule = Schedule(0, (2,), faults)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        if set(goes_on.start(name, schedule, attempt)) == {DONE}:
            assert len(goes_on.struck(name)) == len(faults)
            return run
    raise AssertionError("it was not done")


def losses(run: RunFolder) -> list[list[float]]:
    """Of every step of every stage, as it counted in the end."""
    return [[step.loss for step in stage.steps] for stage in read_run(run).stages]


@pytest.mark.long
def test_what_was_fed_stays_and_a_kill_changes_nothing(job: Job, undisturbed: RunFolder) -> None:
    run = extended(job, undisturbed, "extended")
    verified = verify_run(run)
    assert verified.findings == ()
    assert verified.is_finished
    assert {stage.name: stage.num_steps for stage in verified.stages} == NUM_STEPS_NOW
    assert [stage.part_steps for stage in verified.stages] == [(4,), (12, 6), (3,)]
    for index, stage in enumerate(NUM_STEPS):
        before, now = undisturbed.stage(index, stage), run.stage(index, stage)
        assert now.ledger.read_bytes().startswith(before.ledger.read_bytes())
        assert now.metrics.read_bytes().startswith(before.metrics.read_bytes())
        old, new = PackPlan.open(before.packs), PackPlan.open(now.packs)
        assert np.array_equal(new.starts[: len(old) + 1], old.starts)
        assert np.array_equal(new.example_ids[: len(old.example_ids)], old.example_ids)
    words = run.stage(1, "words")
    model = "model.safetensors"
    kept = words.path / "model-step-00000012"
    assert hash_file(kept / model) == hash_file(undisturbed.stage(1, "words").model / model)
    assert hash_file(words.model / model) != hash_file(kept / model)

    # The learning rate of what was trained is what it was; what was added has its own, from its first step on.
    records = read_run(run)
    rates = [step.lr for step in records.stages[1].steps]
    assert rates[:12] == [step.lr for step in read_run(undisturbed).stages[1].steps]
    assert max(rates[12:]) == rates[12] == 2e-4
    assert [(e.name, e.step) for e in records.mid_stage] == [("words", 12)]
    assert [e.name for e in records.evaluations] == ["base", "broad", "words", "late"]
    page = render_report(run)
    assert "was extended after step 12" in page

    # At the first step of the new part, at the end of the stage, and in the one behind it.
    faults = (Fault(1, 0, "train", 1, "kill"), Fault(2, 1, "backward", 10, "kill"), Fault(3, 0, "export", 2, "kill"))
    killed = extended(job, undisturbed, "extended-killed", (*faults, Fault(4, 1, "train", 2, "kill")))
    assert verify_run(killed).findings == ()
    for index, stage in enumerate(NUM_STEPS_NOW):
        assert losses(killed)[index] == losses(run)[index]
        found, wanted = (hash_file(r.stage(index, stage).model / model) for r in (killed, run))
        assert found == wanted
