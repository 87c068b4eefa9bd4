"""What a run trains on that was made is in its manifest, its report and the card of each model that it exports."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher import inspection
from launcher.cli import main
from launcher.command_line import build_parser, parse
from launcher.console import build_console
from launcher.preparation import prepare
from sft.atomic_files import read_json, write_json
from sft.config import SftConfig
from sft.config_arguments import overrides_of
from sft.data.preparation import prepare_store
from sft.errors import UserError
from sft.evaluation.made_data import made_of_models, made_rows
from sft.evaluation.model_card import model_card
from sft.evaluation.report import render_report
from sft.job_config import load_job
from sft.ranks.ranks import OneRank
from sft.run_folder import RunFolder
from sft.training.attempt import begin_attempt
from sft.training.control_signals import ControlSignals
from sft.training.curriculum import run_curriculum
from sft.training.run_context import RunContext
from sft.training.run_record import check_run, claim_run_folder, record_made_data
from sft.training.workload import prepare_workload
from sft.verification.run_check import verify_run
from tests.approval.reviewed import constructed, say
from tests.conftest import SmallRecords
from tests.endpoint.chat_server import chat_server
from tests.jobs import two_stage_job


@pytest.fixture(scope="module")
def job(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One stage of one step; of eight made records people have accepted five and rejected one."""
    folder = tmp_path_factory.mktemp("made_data")
    made = constructed(folder / "made|by<b>", 8)
    say(made, [*range(5)], "accept")
    say(made, [5], "reject", "lee")
    content = two_stage_job("run", folder, tiny_model_dir, small_records, {"broad": 1, "words": 1})
    source = {"name": "made", "path": str(made), "constructed": True}
    data = {**content["data"], "sources": [*content["data"]["sources"], source]}
    return {**content, "stages": content["stages"][:1], "data": data}


@pytest.fixture(scope="module")
def config(job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


@pytest.fixture(scope="module")
def run(job: dict[str, Any]) -> RunFolder:
    config = SftConfig.model_validate(job)
    workload, run = prepare_workload(config)[0], RunFolder(config.run.dir)
    assert run_curriculum(RunContext(config, workload, begin_attempt(run, OneRank()), ControlSignals(run.stop_file)))
    return run


def card_of(run: RunFolder) -> str:
    return (run.stage(0, "broad").model / "README.md").read_text()


def test_the_manifest_keeps_by_whom_it_was_made_and_approved(run: RunFolder) -> None:
    made = read_json(run.manifest)["made"]["made"]
    assert made["recipes"] == {"self_instruct": 5}
    assert made["reviewers"] == {"kim": 5}
    assert made["left_out"] == {"rejected": 1, "open": 2}
    assert {*made["sha256"]} == {"records", "decisions"}


def test_report_and_card_say_it_in_words(run: RunFolder) -> None:
    for text in (render_report(run), card_of(run).replace("\\", "")):
        assert "self" in text
        assert "big at http://teacher 5" in text
        assert "kim 5 (one by one: 5, 2026-11-28)" in text
        assert "1 rejected, 2 open" in text
        assert "UNREVIEWED" not in text


def test_the_card_has_losses_and_metadata_that_read_back_and_no_path_of_this_machine(run: RunFolder) -> None:
    card = card_of(run)
    _, metadata, text = card.split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sft"],
    }
    assert str(run.path.parent) not in card
    losses = [line for line in text.splitlines() if line.startswith(("| before training", "| stage broad"))]
    assert len(losses) == 2
    assert "<b>" not in text
    assert r"made\|by\<b\>" in text


def test_every_row_is_proven_from_the_approved_records_and_the_run_verifies(
    run: RunFolder, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspection.check(load_job(config, []).sft, build_console())
    assert "made data of made: 5 records" in " ".join(capsys.readouterr().out.split())
    verified = verify_run(run)
    assert verified.findings == ()


def test_the_exported_checkpoint_has_the_card_of_the_end(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run.path), "--to", str(tmp_path / "model")]) == 0, capsys.readouterr()
    assert (tmp_path / "model" / "README.md").read_text() == card_of(run)


def began_with(job: dict[str, Any], folder: Path, **more: Any) -> dict[str, Any]:
    """What is known to be made of a run in this folder that begins with another and trains on nothing made."""
    data = {**job["data"], "sources": job["data"]["sources"][:2]}
    config = SftConfig.model_validate({**job, "run": {**job["run"], "dir": str(folder)}, "data": data, **more})
    claim_run_folder(RunFolder(folder))
    record_made_data(config, {})
    return dict(read_json(RunFolder(folder).manifest).get("made_before", {}))


def test_a_model_says_what_it_was_trained_on_to_runs_that_load_its_folder(
    run: RunFolder, job: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(run.stage(0, "broad").model, tmp_path / "model")
    model = {**job["model"], "path": str(tmp_path / "model")}
    assert began_with(job, tmp_path / "next", model=model) == {"run: made": read_json(run.manifest)["made"]["made"]}
    assert began_with(job, tmp_path / "first") == {}
    model = {**job["model"], "path": str(tmp_path)}
    (tmp_path / "manifest.json").write_text('{"made": {"x": 1}}')
    assert began_with(job, tmp_path / "foreign", model=model) == {}


def test_runs_of_the_same_name_one_after_the_other_are_all_remembered(job: dict[str, Any], tmp_path: Path) -> None:
    made = [{"num": 9, "num_unreviewed": n} for n in (7, 0, 2)]
    first, second, third, last = (RunFolder(tmp_path / name / "run") for name in "abcd")
    for n, (before, one) in enumerate(zip([None, first, second], [first, second, third], strict=True)):
        start = {"from": {"run": str(before.path), "stage": "broad"}} if before else {}
        began_with(job, one.path, **start)
        write_json(one.manifest, {**read_json(one.manifest), "made": {"made": made[n]}})
    found = began_with(job, last.path, **{"from": {"run": str(third.path), "stage": "broad"}})
    assert found == {"run: made": made[0], "run (2): made": made[1], "run (3): made": made[2]}
    rows = made_rows(made_of_models(read_json(last.manifest)))
    assert [bool(row.warning) for row in rows] == [True, False, True]
    shutil.rmtree(tmp_path / "c")
    assert began_with(job, last.path, **{"from": {"run": str(third.path), "stage": "broad"}}) == found, "it is gone"


def test_unreviewed_is_said_aloud_and_no_resume_of_the_run(
    run: RunFolder, job: dict[str, Any], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="data.unreviewed: was False, now True"):
        check_run(SftConfig.model_validate({**job, "data": {**job["data"], "unreviewed": True}}))
    other = run.path.with_name("other")
    options = parse(build_parser(), ["prepare", str(config), "--unreviewed", f"run.dir={other}"])
    prepare(load_job(config, overrides_of(options)).sft, build_console())
    warning = "UNREVIEWED: nobody has approved 2 of 7 made records of the source made, and they are trained on"
    assert warning in " ".join(capsys.readouterr().out.split())
    assert warning in render_report(RunFolder(other))
    sft = load_job(config, overrides_of(options)).sft
    card = model_card(sft, prepare_store(sft.data, sft.model), RunFolder(other).stage(0, "broad"), 1, False)
    assert f"> **{warning}" in card
    assert "- unreviewed-data\n" in card
    assert read_json(RunFolder(other).manifest)["made"]["made"]["num_unreviewed"] == 2
    assert yaml.safe_load(RunFolder(other).config.read_text())["data"]["unreviewed"] is True


@pytest.mark.parametrize("command", ["construct", "score", "evaluate"])
def test_each_command_that_reads_data_says_aloud_what_nobody_has_approved(
    job: dict[str, Any], tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {**job, "run": {**job["run"], "dir": str(tmp_path / "run")}}
    # No process that judges: its start would take longer than all else.
    scores = {task: {"score": "exact_match"} for task in ("copy", "reverse", "count", "sort", "next")}
    content["evaluate"] = {"answers_per_task": 1, "tasks": scores}
    recipes = [{"kind": "few_shot", "num": 1, "tasks": "all"}]
    nobody = {"teacher": {"endpoint": "http://127.0.0.1:1/v1", "model": "nobody"}, "recipes": recipes}
    content["construct"] = {**nobody, "out": str(tmp_path / "out")}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    with chat_server() as server:
        more = {"score": ["--num", "1"], "evaluate": ["--endpoint", server.url]}.get(command, [])
        code = main([command, str(path), "--unreviewed", *more])
    said = " ".join(capsys.readouterr().out.split())
    assert "UNREVIEWED: nobody has approved 2 of 7 made records of the source made, and they are trained on" in said
    assert code == (2 if command == "construct" else 0), "its teacher is away"


def test_a_run_that_begins_with_another_says_what_that_one_was_trained_on(run: RunFolder, job: dict[str, Any]) -> None:
    manifest = json.loads(run.manifest.read_text())
    before = manifest["made"]["made"]
    spoiled = {**before, "num_unreviewed": 3}
    try:
        run.manifest.write_text(json.dumps({**manifest, "made": {"made": spoiled}}))
        sources = job["data"]["sources"][:2]
        later = {**job, "run": {**job["run"], "dir": str(run.path.with_name("later"))}}
        later["data"] = {**job["data"], "sources": sources}
        later["from"] = {"run": str(run.path), "stage": "broad", "step": 1, "model": str(run.stage(0, "broad").model)}
        prepare_workload(SftConfig.model_validate(later))
        found = read_json(RunFolder(Path(later["run"]["dir"])).manifest)
        assert "made" not in found
        assert found["made_before"] == {"run: made": spoiled}
        assert "UNREVIEWED" in render_report(RunFolder(Path(later["run"]["dir"])))
    finally:
        run.manifest.write_text(json.dumps(manifest))
