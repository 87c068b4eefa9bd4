"""A run that begins with a stage of another one, or with a checkpoint of it, and replays its stages."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sft.absolute_paths import absolute_paths
from sft.atomic_files import hash_file, read_json
from sft.config import SftConfig
from sft.config_file import ConfigError
from sft.errors import UserError
from sft.evaluation.report import render_report
from sft.job_config import load_job
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from sft.verification.run_check import verify_run
from tests.chaos.faults import Fault, Schedule
from tests.chaos.job import MOST_ATTEMPTS, Job
from tests.forked_ranks import DONE

LATE = {
    "name": "late",
    "mixture": {"tasks": ["count"], "replay": {"broad": 0.3, "words": 0.2}},
    "budget": {"steps": 3},
    "optimizer": {"lr": 1e-3},
}


def trained(job: Job, config: SftConfig, faults: tuple[Fault, ...] = ()) -> RunFolder:
    """The run of a config, trained to its end."""
    workload, _store, _plans = prepare_workload(config)
    content = config.model_dump(mode="json", by_alias=True)
    started = job._replace(content=content, workload=workload.as_json())
    name = config.run.dir.name
    for attempt in range(1, MOST_ATTEMPTS + 1):
        if set(started.start(name, Schedule(0, (2,), faults), attempt)) == {DONE}:
            assert len(started.struck(name)) == len(faults)
            return RunFolder(config.run.dir)
    raise AssertionError("it was not done")


def config_from(job: Job, name: str, start: dict[str, Any], **sections: Any) -> SftConfig:
    """A run of one stage, whose config says nothing of the model."""
    content = {key: value for key, value in job.content.items() if key != "model"}
    content |= {"run": {"name": name, "dir": str(job.folder / name)}, "stages": [LATE], "from": start, **sections}
    path = job.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return absolute_paths(load_job(path).sft)


@pytest.mark.long
def test_it_is_as_good_as_a_stage_behind_from_a_model_and_from_a_checkpoint(job: Job, undisturbed: RunFolder) -> None:
    behind = RunFolder(job.folder / "behind")
    shutil.copytree(undisturbed.path, behind.path)
    content = {**job.content, "run": {"name": "behind", "dir": str(behind.path)}}
    content["stages"] = [*job.content["stages"], LATE]
    trained(job, SftConfig.model_validate(content))
    wanted = hash_file(behind.stage(2, "late").model / "model.safetensors")

    config = config_from(job, "from-model", {"run": str(undisturbed.path), "stage": "words"})
    assert config.model.path == str(undisturbed.stage(1, "words").model)
    run = trained(job, config, (Fault(1, 0, "train", 2, "kill"),))
    assert verify_run(run).findings == ()
    assert verify_run(run).began_with == f"stage words of {undisturbed.path}, after 12 steps of it"
    assert f"The run began with stage words of {undisturbed.path}, after 12 steps" in render_report(run)
    assert hash_file(run.stage(0, "late").model / "model.safetensors") == wanted

    # The checkpoint after the last step holds the same parameters: all in float32.
    checkpoint = undisturbed.stage(1, "words").checkpoints / "step-00000012"
    update = {
        "checkpoints": str(checkpoint.parent),
        "model": str(undisturbed.stage(0, "broad").model),
        "manifest_sha256": read_json(checkpoint / "manifest.json")["manifest_sha256"],
    }
    assert config.from_ is not None
    run_config = config.run.model_copy(update={"dir": job.folder / "from-checkpoint"})
    model = config.model.model_copy(update={"path": update["model"]})
    started = {"from_": config.from_.model_copy(update=update), "run": run_config, "model": model}
    run = trained(job, config.model_copy(update=started), (Fault(1, 1, "train", 1, "kill"),))
    assert hash_file(run.stage(0, "late").model / "model.safetensors") == wanted


def test_a_checkpoint_in_the_middle_is_found_by_its_step(job: Job, undisturbed: RunFolder) -> None:
    config = config_from(job, "from-step-9", {"run": str(undisturbed.path), "stage": "words", "step": 9})
    assert config.from_ is not None
    assert config.from_.checkpoints == str(undisturbed.stage(1, "words").checkpoints)
    assert config.model.path == str(undisturbed.stage(0, "broad").model)
    assert set(config.from_.mixtures) == {"broad", "words"}
    run = trained(job, config)
    # What is measured first is the model that it begins with.
    base = read_json(run.evaluations / "base.json")["loss"]
    ends = [read_json(undisturbed.evaluations / f"{name}.json")["loss"] for name in ("0-broad", "1-words")]
    assert base not in ends
    # A run that starts from that run can replay the stages of both.
    later = config_from(job, "third", {"run": str(run.path), "stage": "late"})
    assert later.from_ is not None
    assert set(later.from_.mixtures) == {"broad", "words", "late"}


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"run": "{run}/nowhere", "stage": "words"}, "is not the folder of a run"),
        ({"run": "{run}", "stage": "wrds"}, "has no stage of this name\n      → name one of: broad, words"),
        (
            {"run": "{run}", "stage": "words", "step": 5},
            "no model and no checkpoint after so many steps\n      → give from.step one of: 9, 12",
        ),
        ({"run": "{run}"}, "from.stage: nothing"),
        ({"stage": "words"}, "from.run: nothing"),
    ],
)
def test_what_is_not_there_is_said(job: Job, undisturbed: RunFolder, start: dict[str, Any], said: str) -> None:
    given = {k: v.format(run=undisturbed.path) if isinstance(v, str) else v for k, v in start.items()}
    with pytest.raises(UserError) as error:
        config_from(job, "wrong", given)
    assert said in str(error.value)


def test_another_model_beside_it_or_a_stage_that_is_none_is_refused(job: Job, undisturbed: RunFolder) -> None:
    start = {"run": str(undisturbed.path), "stage": "broad"}
    with pytest.raises(ConfigError, match="model.path: 'other/model'"):
        config_from(job, "wrong", start, model={"path": "other/model"})
    with pytest.raises(ConfigError, match=r"replay.words: 'words'\n.*is not an earlier stage\n.*name one of broad"):
        config_from(job, "wrong", start)


def test_a_resolved_config_reads_back_equal(job: Job, undisturbed: RunFolder, tmp_path: Path) -> None:
    config = config_from(job, "again", {"run": str(undisturbed.path), "stage": "words"})
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True)))
    assert load_job(path).sft == config
