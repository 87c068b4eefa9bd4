"""A local teacher on several workers makes the records of one, also if a worker is killed on the way."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.running import SFT, run_to_end, started, wait_until
from tests.conftest import SmallRecords
from tests.construction.talking import job_of, make_talking_model


def lines_in(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def actors_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    assert process.poll() is None
    return [child for child in psutil.Process(process.pid).children(recursive=True) if "_Actor" in child.name()]


@pytest.mark.long
def test_several_workers_make_the_records_of_one_also_if_one_is_killed(
    small_records: SmallRecords, tmp_path: Path
) -> None:
    model = make_talking_model(tmp_path / "model")
    content: dict[str, Any] = job_of(model, small_records, tmp_path)
    recipe = {"kind": "magpie", "num": 400, "tasks": ["copy", "sort"], "shots": 2, "max_tokens": 200}
    content["construct"]["recipes"] = [recipe]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(content))
    alone, several = tmp_path / "alone", tmp_path / "several"
    run_to_end([*SFT, "construct", str(config), f"construct.out={alone}"])
    log = several / "log" / "replies.jsonl"
    command = [*SFT, "construct", str(config), f"construct.out={several}", "cluster.workers=2"]
    with started(command, subprocess.PIPE) as process:
        try:
            wait_until(lambda: len(lines_in(log)) > 32 and len(actors_of(process)) == 2, 150, "nothing is asked")
            actors = actors_of(process)
            os.kill(actors[0].pid, signal.SIGKILL)
            num_before = len(lines_in(log))
            said, _ = process.communicate(timeout=200)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert num_before < len(lines_in(alone / "log" / "replies.jsonl")) - 32, "it was killed on the way"
    asked = [json.loads(line)["request"] for line in lines_in(log)]
    assert len(asked) == len(set(asked))
    assert (several / "records.jsonl").read_text() == (alone / "records.jsonl").read_text()
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (alone, several)]
    assert manifests[0] == manifests[1]
    assert manifests[0]["num_kept"] > 100
