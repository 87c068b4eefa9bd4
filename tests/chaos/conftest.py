"""One job, prepared once, for all chaos. `--chaos N` schedules of each kind: few with the long tests."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sft.attempt_record import read_num_ranks
from sft.config import SftConfig
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from tests.chaos.faults import Schedule
from tests.chaos.job import NUM_STEPS, PACKS_PER_STEP, Job
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job

FIRST = {"same_seed": 8}
"""The schedule that is tried where only one of a kind is: two attempts, all ranks killed and a checkpoint damaged."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    number = metafunc.config.getoption("--chaos")
    # Those with Ray take a minute or two.
    with_ray = dict.fromkeys(("own_seed", "cluster_seed"), max(1, 2 * number // 3))
    numbers = {"same_seed": number, "other_seed": number, "shared_seed": number, **with_ray}
    for name, count in numbers.items():
        if name in metafunc.fixturenames:
            first = FIRST.get(name, 0)
            seeds = [first, *(seed for seed in range(count) if seed != first)][:count]
            metafunc.parametrize(name, seeds, ids=lambda seed, kind=name: f"{kind.split('_')[0]}-{seed}")


@pytest.fixture(scope="session")
def job(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("chaos")
    content = two_stage_job("prepared", folder, tiny_model_dir, small_records, NUM_STEPS)
    content["train"] |= {"packs_per_step": PACKS_PER_STEP, "packs_per_micro_batch": 2}
    content["checkpoint"] = {"every_steps": 3, "keep_last": 2}
    content["evaluate"] = {"max_examples_per_task": 4}
    workload, _store, _plans = prepare_workload(SftConfig.model_validate(content))
    # The plan of what is held out lies in the run folder; every run has its own.
    return Job(content, workload.as_json(), folder)


Tell = Callable[[RunFolder, Sequence[str], str], None]
"""(the run, what struck it, how equal it is to the undisturbed one)"""


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Adds a line to the table of what was met and survived."""
    path: Path | None = request.config.getoption("--chaos-table")

    def add(run: RunFolder, struck: Sequence[str], equal: str) -> None:
        sizes = [read_num_ranks(attempt) for attempt in run.all_attempts()]
        if path is not None:
            with path.open("a") as file:
                file.write(f"| {run.path.name} | {' → '.join(map(str, sizes))} | {'; '.join(struck)} | {equal} |\n")

    return add


@pytest.fixture(scope="session")
def undisturbed(job: Job) -> RunFolder:
    return job.run("undisturbed", Schedule(0, (2,), ()))
