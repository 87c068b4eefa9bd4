"""Real Ray: where it is near that workers are needed, a Ray of our own is there before they are asked for."""

import os
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml

from launcher.cluster.trainer_process import Connected, Outcome, TrainerProcess, TrainerRequest, run_process
from sft.job_config import JobConfig, load_job
from sft.run_folder import RunFolder
from sft.training.prepared import Workload
from tests.cluster.running import is_alive, wait_until


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobConfig:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    content = {
        "run": {"name": "early", "dir": str(tmp_path / "run")},
        "model": {"path": "some/model"},
        "data": {"sources": [{"name": "words", "path": "words.jsonl", "format": "instruction"}]},
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    (tmp_path / "run").mkdir()
    return load_job(path)


def raylets() -> list[psutil.Process]:
    children = psutil.Process(os.getpid()).children(recursive=True)
    return [child for child in children if child.name() == "raylet"]


@pytest.mark.long
def test_it_waits_for_the_request_and_ends_with_its_work(job: JobConfig, tmp_path: Path) -> None:
    before = raylets()
    connected: list[Connected] = []
    with closing(TrainerProcess(job=job)) as early:
        wait_until(lambda: raylets() != before, 60, "no Ray is started")
        [raylet] = [one for one in raylets() if one not in before]
        nothing_left = TrainerRequest(job, Workload(tmp_path / "store", None, ()), 1, trains=False)
        assert run_process(nothing_left, connected.append, early) == Outcome("finished")
    assert [one.where for one in connected] == ["this machine"]
    assert RunFolder(job.sft.run.dir).ray_log.is_file()
    wait_until(lambda: not is_alive(raylet.pid), 20, "Ray outlives its work")


def test_one_that_nobody_asks_for_leaves_nothing_behind(job: JobConfig) -> None:
    before, others = raylets(), psutil.Process(os.getpid()).children(recursive=True)
    with closing(TrainerProcess(job=job)):
        wait_until(lambda: raylets() != before, 60, "no Ray is started")
        started = [one for one in psutil.Process(os.getpid()).children(recursive=True) if one not in others]
    wait_until(lambda: not any(is_alive(one.pid) for one in started), 20, "a process of Ray is left")
