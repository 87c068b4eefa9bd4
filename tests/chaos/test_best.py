"""The best model and the early end of a stage, on real ranks: killed equals never killed, and all readers agree."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from sft.atomic_files import hash_file, read_json
from sft.attempt_record import read_end
from sft.checkpoint.local_storage import checkpoint_path, published_steps
from sft.config import SftConfig
from sft.errors import UserError
from sft.evaluation.report import render_report
from sft.monitoring.run_status import RunWatcher
from sft.run_events import read_events
from sft.run_folder import RunFolder
from sft.sinks.run_reader import RunReader
from sft.stage_end import BestStep, StageEnd, read_stage_end
from sft.training.workload import prepare_workload
from sft.verification.run_check import verify_run
from tests.chaos.faults import Fault, Schedule
from tests.chaos.job import Job
from tests.chaos.rank import ENDED
from tests.conftest import SmallRecords
from tests.forked_ranks import DONE
from tests.jobs import two_stage_job

QUIET = Schedule(0, (2,), ())
ALONE = Schedule(0, (1,), ())
"""Where what is decided does not depend on the number of ranks."""
PATIENCE = 3


def content_of(folder: Path, model: Path, records: SmallRecords) -> dict[str, Any]:
    """A stage whose loss on counting falls, then rises for long: it is flat before its ten steps are done."""
    content = two_stage_job("prepared", folder, model, records, {"broad": 10, "words": 1})
    broad, words = content["stages"]
    steady = {"lr": 1e-2, "schedule": "constant", "warmup_ratio": 0.0}
    best = {"score": "loss", "task": "count", "stop_when_flat": PATIENCE}
    return {
        **content,
        "stages": [{**broad, "optimizer": steady}, words],
        "train": {**content["train"], "packs_per_step": 2},
        "checkpoint": {"every_steps": 5, "keep_last": 1, "best": best},
        "evaluate": {"every_steps": 1, "max_examples_per_task": 6},
    }


@pytest.fixture(scope="module")
def job(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("best")
    content = content_of(folder, tiny_model_dir, small_records)
    return Job(content, prepare_workload(SftConfig.model_validate(content))[0].as_json(), folder)


@pytest.fixture(scope="module")
def ended(job: Job) -> RunFolder:
    return job.run("ended", QUIET)


def losses_of_counting(run: RunFolder) -> dict[int, float]:
    paths = run.evaluations.glob("0-broad-step-*.json")
    return {int(path.stem[-8:]): read_json(path)["tasks"]["count"]["loss"] for path in paths}


def end_of(run: RunFolder) -> StageEnd:
    end = read_stage_end(run.stage(0, "broad"))
    assert end is not None
    assert end.best is not None
    return end


def test_a_flat_stage_ends_with_its_best_model_beside_its_last(ended: RunFolder) -> None:
    losses, stage, end = losses_of_counting(ended), ended.stage(0, "broad"), end_of(ended)
    best = min(losses, key=losses.__getitem__)
    last = best + PATIENCE
    assert sorted(losses) == [*range(1, last + 1)]
    assert last < 10
    assert end == StageEnd("broad", last, 1, 10, BestStep(best, losses[best], "loss", "count"), PATIENCE)
    assert published_steps(stage.checkpoints) == [best, last], "one is kept as the newest, and one as the best"
    for folder, step in ((stage.best_model, best), (stage.model, last)):
        [saved] = [
            safe_open(p, "pt") for p in checkpoint_path(stage.checkpoints, step).glob("rank-00000-*.safetensors")
        ]
        with saved, safe_open(folder / "model.safetensors", "pt") as model:
            name = next(key for key in saved.keys() if key.endswith("norm.weight/master"))  # noqa: SIM118
            part = saved.get_tensor(name)
            assert part.equal(model.get_tensor(name.removesuffix("/master")).flatten()[: len(part)])
    assert hash_file(stage.best_model / "model.safetensors") != hash_file(stage.model / "model.safetensors")
    # The same model is not measured twice.
    at_end, within = (read_json(ended.evaluation(stage, step)) for step in (None, last))
    assert at_end == {**within, "step": None, "num_steps": last}
    # In a stage of one step the end is the best: nothing is written twice.
    words = ended.stage(1, "words")
    second = read_stage_end(words)
    assert second is not None
    assert (second.is_early, second.has_best_model, words.best_model.exists()) == (False, False, False)
    told = [event.text for event in read_events(ended.attempt(1)) if event.kind == "ended"]
    assert told[0].startswith(
        f"stage broad ended after step {last} of 10: its last {PATIENCE} evaluations were not bet"
    )
    assert told[0].endswith(f"is after step {best} (model-best)")
    assert told[1].endswith("is at its end (model)")


def test_whoever_reads_the_run_knows_where_the_stage_ended(ended: RunFolder) -> None:
    last = end_of(ended).num_steps
    verified = verify_run(ended)
    assert verified.findings == ()
    assert [stage.num_steps for stage in verified.stages] == [last, 1]
    assert verified.is_finished
    status = RunWatcher(ended).read()
    assert [(s.num_done, s.num_steps, s.seconds_left) for s in status.stages] == [(last, last, 0.0), (1, 1, 0.0)]
    assert f"Stage broad ended after step {last} of 10" in render_report(ended)
    points, reader = [], RunReader(ended, ["broad", "words"], replaces=False, state={})
    while new := reader.read():
        points += new
    trained = [(point.stage, point.step) for point in points if "train/loss" in point.values]
    assert trained == [*(("broad", step) for step in range(1, last + 1)), ("words", last + 1)]
    measured = [(point.stage, point.step) for point in points if "eval/loss" in point.values]
    assert sorted(measured) == [("broad", step) for step in range(last + 1)] + [("words", last + 1)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda end: {**end, "num_steps": end["num_steps"] - 1}, "was trained, but the stage ended early, after"),
        (lambda end: {**end, "num_flat": end["num_flat"] + 1}, "evaluations in a row were not better; by its"),
        (lambda end: {**end, "num_flat": None}, "was never trained"),
        (lambda end: {**end, "best": None}, "says that it ended early, but not which step was the best"),
        (lambda end: {**end, "best": {**end["best"], "value": 1.0}}, "no evaluation says so"),
        (lambda end: {**end, "best": {**end["best"], "passed_over": [2]}}, "had no checkpoint: 2"),
    ],
)
def test_an_end_that_does_not_follow_from_the_evaluations_is_found(
    ended: RunFolder, tmp_path: Path, change: Any, text: str
) -> None:
    shutil.copytree(ended.path, tmp_path / "changed")
    run = RunFolder(tmp_path / "changed")
    path = run.stage(0, "broad").complete
    path.write_text(json.dumps(change(read_json(path))))
    found = [line for findings in verify_run(run).findings for line in findings.first]
    assert any(text in line for line in found), found


def same_end(run: RunFolder, other: RunFolder) -> None:
    """Two runs ended after the same steps with the same models, and measured the same."""
    for index, name in enumerate(("broad", "words")):
        one, two = (each.stage(index, name) for each in (run, other))
        for folder in ("model", "model-best"):
            files = [stage.path / folder / "model.safetensors" for stage in (one, two)]
            assert files[0].is_file() == files[1].is_file()
            assert not files[0].is_file() or hash_file(files[0]) == hash_file(files[1])
        first, second = (read_json(stage.complete) for stage in (one, two))
        assert {**first, "attempt": 0} == {**second, "attempt": 0}
    names = sorted(path.name for path in run.evaluations.glob("*.json"))
    assert names == sorted(path.name for path in other.evaluations.glob("*.json"))
    for name in names:
        assert (run.evaluations / name).read_bytes() == (other.evaluations / name).read_bytes()
    assert verify_run(run).findings == ()


@pytest.mark.long
def test_killed_at_its_end_it_takes_the_same_decisions(job: Job, ended: RunFolder) -> None:
    faults = (
        Fault(1, 1, "train", 6, "kill"),
        Fault(2, 0, "export", 3, "kill"),  # the stage has ended early, and its last model is half written
        Fault(3, 0, "complete", 2, "kill"),  # both models are there, and `stage.json` is not
    )
    same_end(job.run("killed", Schedule(1, (2,), faults)), ended)


@pytest.mark.long
@pytest.mark.parametrize(("place", "nth"), [("evaluate", 1), ("evaluate", 8), ("save", 7), ("publish", 5)])
def test_killed_wherever_it_evaluates_or_saves_it_takes_the_same_decisions(
    job: Job, ended: RunFolder, place: str, nth: int
) -> None:
    faults = (Fault(1, 0, place, nth, "kill"), Fault(2, 0, "load checkpoint", 1, "kill"))
    same_end(job.run(f"killed-{place}-{nth}", Schedule(nth, (2,), faults)), ended)


def copied(job: Job, ended: RunFolder, name: str) -> RunFolder:
    shutil.copytree(ended.path, job.folder / name)
    return RunFolder(job.folder / name)


def test_where_the_best_checkpoints_are_gone_the_best_of_the_others_is_taken_and_that_is_said(
    job: Job, ended: RunFolder
) -> None:
    run, end = copied(job, ended, "gone"), end_of(ended)
    stage, best = run.stage(0, "broad"), end.best
    assert best is not None
    for folder in (checkpoint_path(stage.checkpoints, best.step), stage.best_model, run.stage(1, "words").path):
        shutil.rmtree(folder)
    stage.complete.unlink()
    shutil.copytree(ended.path.parent / "prepared" / "stages" / "1-words", run.stage(1, "words").path)
    assert set(job.start("gone", ALONE, 1)) == {DONE}
    now = end_of(run)
    losses = losses_of_counting(run)
    better = {step for step in losses if losses[step] < losses[end.num_steps]}
    assert (now.best.step, {*now.best.passed_over}) == (end.num_steps, better)  # type: ignore[union-attr]
    assert not stage.best_model.exists()
    assert verify_run(run).findings == ()


def test_more_budget_is_refused_where_the_rule_would_end_it_at_once_and_else_trained(
    job: Job, ended: RunFolder
) -> None:
    run, end = copied(job, ended, "more"), end_of(ended)
    shutil.rmtree(run.stage(1, "words").path)
    broad = {**job.content["stages"][0], "budget": {"steps": 12}}
    content = {**job.content, "run": {"name": "more", "dir": str(run.path)}, "stages": [broad]}
    with pytest.raises(UserError, match=rf"ended after step {end.num_steps} of 10, because its last 3 evaluations"):
        prepare_workload(SftConfig.model_validate(content))
    checkpoint = {**job.content["checkpoint"], "best": {"score": "loss", "task": "count"}}
    content = {**content, "checkpoint": checkpoint}
    workload = prepare_workload(SftConfig.model_validate(content))[0].as_json()
    assert set(job._replace(content=content, workload=workload).start("more", ALONE, 1)) == {DONE}
    now, stage = end_of(run), run.stage(0, "broad")
    assert (now.num_steps, now.is_early, now.best) == (12, False, end.best)
    assert hash_file(stage.best_model / "model.safetensors") == hash_file(
        ended.stage(0, "broad").best_model / "model.safetensors"
    )
    assert (stage.path / f"model-best-step-{end.num_steps:08d}").is_dir()
    verified = verify_run(run)
    assert verified.findings == ()
    assert verified.stages[0].num_steps == 12


@pytest.mark.long
def test_what_may_not_be_forgotten_stops_the_run_with_a_checkpoint_or_is_told(job: Job) -> None:
    steep = {**job.content["stages"][0], "optimizer": {"lr": 3e-2, "schedule": "constant", "warmup_ratio": 0.0}}
    steep["budget"] = {"steps": 6}
    retain = {"tasks": ["count"], "sources": ["words"], "max_drop": 0.05, "action": "stop"}
    content = {**job.content, "stages": [steep], "run": {"name": "steep", "dir": str(job.folder / "steep")}}
    content |= {"checkpoint": {"every_steps": 100}, "evaluate": {**job.content["evaluate"], "retain": retain}}
    workload = prepare_workload(SftConfig.model_validate(content))[0].as_json()
    run = RunFolder(job.folder / "steep")
    strict = job._replace(content=content, workload=workload)
    assert set(strict.start("steep", QUIET, 1)) == {ENDED}
    base = read_json(run.evaluation())["tasks"]["count"]["loss"]
    losses = losses_of_counting(run)
    fallen = [step for step in sorted(losses) if losses[step] / base - 1 > 0.05]
    assert sorted(losses) == [*range(1, max(losses) + 1)]
    assert fallen == [max(losses)], "it stopped at the first evaluation that was too bad"
    stage = run.stage(0, "broad")
    assert published_steps(stage.checkpoints)[-1] == max(losses)
    why = read_end(run.attempt(1))
    assert why is not None
    assert why.why == "failed"
    assert f"stage broad, after step {max(losses)}: worse than the base model by more than" in why.message
    assert "task count: loss" in why.message
    assert "source words" not in why.message, "as a whole it has become better"
    # Started anew, as by another driver, it decides as before; allowed to go on, it does, and tells.
    run.attempt(1).ended.unlink()
    assert set(strict.start("steep", ALONE, 2)) == {ENDED}
    assert sorted(losses_of_counting(run)) == sorted(losses)
    again = read_end(run.attempt(2))
    assert again is not None
    assert again.message == why.message
    run.attempt(2).ended.unlink()
    content["evaluate"] = {**content["evaluate"], "retain": {**retain, "action": "warn"}}
    assert set(job._replace(content=content, workload=workload).start("steep", ALONE, 3)) == {DONE}
    told = [event for event in read_events(run.attempt(3)) if event.kind == "forgotten"]
    assert [event.facts.get("step") for event in told] == [*range(max(losses) + 1, 6), None]
    assert [event.kind for event in read_events(run.attempt(1))].count("forgotten") == 1
