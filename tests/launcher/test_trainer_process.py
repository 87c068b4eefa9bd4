"""The process that speaks to Ray is started before there is a request: how it ends without one, and with an error."""

import json
import os
import pickle
import subprocess
from pathlib import Path

import pytest
import yaml

from launcher.cluster.ray_process import start_ray_process
from sft.job_config import JobConfig, load_job
from tests.cluster.running import ROOT
from tests.forked_ranks import warm_command

FAILS = """
from launcher.cluster import trainer

def read_too_far(*_):
    raise EOFError("a file ends too early")

trainer.run_trainer = read_too_far
trainer.main()
"""


@pytest.fixture
def job(tmp_path: Path) -> JobConfig:
    content = {
        "run": {"name": "early", "dir": str(tmp_path / "run")},
        "model": {"path": "some/model"},
        "data": {"sources": [{"name": "words", "path": "words.jsonl", "format": "instruction"}]},
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_job(path)


def test_without_a_request_it_ends_without_a_word() -> None:
    read, write = os.pipe()
    process = start_ray_process("launcher.cluster.trainer", write, subprocess.PIPE, subprocess.PIPE)
    os.close(write)
    with os.fdopen(read) as lines:
        assert process.communicate(timeout=100) == (b"", b"")
        assert (lines.read(), process.returncode) == ("", 0)


def test_the_end_of_another_file_is_an_error_as_any_other(job: JobConfig, tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(FAILS)
    read, write = os.pipe()
    with os.fdopen(read) as lines:
        done = subprocess.run(
            warm_command(str(script), str(write)),
            input=pickle.dumps(job),
            capture_output=True,
            pass_fds=(write,),
            timeout=100,
            check=False,
            cwd=ROOT,
        )
        os.close(write)
        assert json.loads(lines.read()) == {"is": "lost", "text": "EOFError: a file ends too early"}, done.stderr
