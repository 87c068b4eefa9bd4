"""A real Slurm cluster of three nodes, and small jobs in two stages for it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sft.run_folder import RunFolder
from tests.cluster.running import metrics, wait_until
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job
from tests.slurm.lab import Lab, slurm_lab

WriteConfig = Callable[..., Path]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three nodes of four CPUs and two pretended GPUs each."""
    assert os.geteuid() == 0, "these tests need root: make test-nodes"
    for program in ("slurmctld", "slurmd", "sbatch", "munged", "ip"):
        assert shutil.which(program), f"{program} is missing: make test-nodes installs it"
    shared = tmp_path_factory.mktemp("shared")
    with slurm_lab(tmp_path_factory.mktemp("lab"), 3, shared) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def write_config(lab: Lab, tiny_model_dir: Path, small_records: SmallRecords) -> WriteConfig:
    """A function that writes the config of a run with the given name and steps; more sections may be given."""
    model = shutil.copytree(tiny_model_dir, lab.shared / "model")
    records = SmallRecords(*(Path(shutil.copy(path, lab.shared)) for path in small_records))

    def write(name: str, steps: dict[str, int], **sections: dict[str, Any]) -> Path:
        content = two_stage_job(name, lab.shared, model, records, steps)
        # One test looks at the nodes: it takes as long as all else that a job does before it trains.
        content["cluster"] = {"workers": 2, "cpus_per_worker": 2, "preflight": False}
        content["slurm"] = {"memory_gib_per_node": 2}  # without it a job gets all of a node's
        for section, fields in sections.items():
            content[section] |= fields
        path = lab.shared / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def run_of(config: Path) -> RunFolder:
    return RunFolder(config.with_suffix(""))


def log_of(config: Path, job_id: str) -> str:
    (path,) = run_of(config).slurm.glob(f"*-{job_id}.log")
    return path.read_text(errors="replace")


def submitted(lab: Lab, config: Path, *overrides: str) -> list[str]:
    """The ids of the jobs that `sft submit slurm` has queued."""
    out = lab.sft("submit", "slurm", config, *overrides).stdout
    return [line.split()[1] for line in out.splitlines() if line.endswith("is queued.")]


def wait_for_attempt(run: RunFolder, attempt: int, stage: str = "words", num_steps: int = 5) -> None:
    """Until an attempt of the run, or a later one, has trained so many steps of the stage."""

    def has_trained() -> bool:
        return sum(line["attempt"] >= attempt for line in metrics(run, stage)) >= num_steps

    wait_until(has_trained, 300, f"attempt {attempt} did not train {num_steps} steps of {stage}")
