"""The configs that come with the project: each is valid, can be planned, and survives being written and read."""

from pathlib import Path

import pytest
import yaml

from launcher.plan import plan_job
from sft.config_file import build_config, dump_config
from sft.errors import UserError
from sft.job_config import JobConfig, load_job

FOLDER = Path(__file__).resolve().parents[1] / "configs"
NAMES = sorted(path.name for path in FOLDER.glob("*.yaml"))


@pytest.fixture(params=NAMES)
def job(request: pytest.FixtureRequest) -> JobConfig:
    return load_job(FOLDER / request.param)


def test_there_is_one_for_every_size_of_machine() -> None:
    needed = {"quickstart", "dolly_hub", "qwen2_5_0_5b_1gpu", "llama3_8b_1node", "llama3_70b_8node"}
    assert {f"{name}.yaml" for name in needed} <= set(NAMES)


def test_the_resolved_config_reads_back_equal(job: JobConfig) -> None:
    dumped = dump_config(job.sft)
    assert build_config(yaml.safe_load(dumped)) == job.sft
    assert dump_config(build_config(yaml.safe_load(dumped))) == dumped


def test_the_plan_has_work_for_every_worker(job: JobConfig) -> None:
    plan = plan_job(job)
    assert 1 <= plan.min_workers <= plan.max_workers
    assert plan.cpus >= plan.max_workers
    assert plan.gpus in (0, plan.max_workers)
    assert [stage.name for stage in plan.stages] == [stage.name for stage in job.sft.stages]
    for stage in plan.stages:
        assert stage.budget
        assert stage.slots_per_step == stage.pack_len_tokens * plan.packs_per_step > 0
        assert stage.micro_batches_per_step > 0
        # A ready config wastes nothing.
        assert stage.empty_packs_per_step == 0


def test_no_two_write_to_the_same_run_folder() -> None:
    folders = [load_job(FOLDER / name).sft.run.dir for name in NAMES]
    assert len(set(folders)) == len(NAMES)


def test_the_large_model_fills_every_size_of_its_cluster() -> None:
    job = load_job(FOLDER / "llama3_70b_8node.yaml")
    assert plan_job(job).gpus == 64
    assert job.sft.train.packs_per_step % 64 == 0
    assert job.sft.deepspeed.offload_optimizer == "none"
    smaller = load_job(FOLDER / "llama3_70b_8node.yaml", ["cluster.workers=32"])
    assert plan_job(smaller).stages[0].empty_packs_per_step == 0


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("dolly_hub.yaml", ["data.sources.dolly.path=data/databricks-dolly-15k.jsonl", "model.path=models/m"]),
        ("dolly_hub.yaml", ["cluster.gpus_per_worker=0", "stages.dolly.budget={steps: 20}"]),
        ("llama3_70b_8node.yaml", ["cluster.workers=16", "deepspeed.offload_optimizer=cpu"]),
    ],
)
def test_the_overrides_that_their_comments_name_are_valid(name: str, overrides: list[str]) -> None:
    assert plan_job(load_job(FOLDER / name, overrides)) is not None


@pytest.mark.parametrize("field", ["train.sequence_parallel", "deepspeed.hpz_partition_size"])
def test_groups_of_no_workers_are_refused(field: str) -> None:
    for given in ("0", "-1", "1.5", "two", "", "[2]"):
        with pytest.raises(UserError, match="greater than 0|whole number") as error:
            load_job(FOLDER / "llama3_8b_1node.yaml", [f"{field}={given}"])
        assert str(error.value).count(f"{field}: ") == 1


@pytest.mark.parametrize("field", ["train.sequence_parallel", "deepspeed.hpz_partition_size"])
def test_workers_that_make_no_whole_groups_are_refused(field: str) -> None:
    config, alone = FOLDER / "llama3_8b_1node.yaml", "slurm.workers_per_node=1"
    load_job(config, [f"{field}=4", "cluster.workers=[4, 8]", alone])
    for assignments in ([f"{field}=3"], [f"{field}='3'"], [f"{field}=4.0", "cluster.workers=[2, 8]", alone]):
        with pytest.raises(UserError, match=r"is not a multiple of it") as error:
            load_job(config, assignments)
        assert str(error.value).count("\n      →") == 1, "and nothing else is wrong"
        assert f"{field}: " in str(error.value)
