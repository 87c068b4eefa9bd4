"""`sft evaluate` on several workers: the answers of one, also if a worker is killed on the way."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.cluster.conftest import WriteConfig
from tests.cluster.running import SFT, run_to_end, started, wait_until

ASKED = ["evaluate.answers_per_task=40", "evaluate.shots=[0,1]", "evaluate.max_new_tokens=60", "--model", "base"]


def answers_in(folder: Path) -> list[dict[str, Any]]:
    [path] = folder.glob("asked/*/base-*.answers.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.long
def test_a_killed_worker_costs_no_answer(write_config: WriteConfig) -> None:
    config = write_config("evaluated")
    content = yaml.safe_load(config.read_text())
    content["data"]["holdout"] = {"share": 0.6, "tasks": ["sort"]}
    config.write_text(yaml.safe_dump(content))
    folder = config.with_suffix("") / "evaluations"
    alone = config.with_name("alone") / "evaluations"
    run_to_end([*SFT, "evaluate", str(config), *ASKED, "cluster.workers=1", f"run.dir={alone.parent}"])
    with started([*SFT, "evaluate", str(config), *ASKED, "cluster.workers=2"], subprocess.PIPE) as process:
        try:
            wait_until(lambda: bool([*folder.glob("asked/*/.base-*.answers.jsonl.partial")]), 150, "nothing is asked")
            replicas = [p for p in psutil.Process(process.pid).children(recursive=True) if "Replica" in p.name()]
            assert len(replicas) == 2, [p.name() for p in psutil.Process(process.pid).children(recursive=True)]
            os.kill(replicas[0].pid, signal.SIGKILL)
            said, _ = process.communicate(timeout=200)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert answers_in(folder) == answers_in(alone)
