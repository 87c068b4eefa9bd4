"""What the shell offers for a half-written command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.command_line import build_parser
from launcher.completion import complete, field_paths
from launcher.verbs import VERBS
from sft.config_file import read_overrides
from sft.job_config import JobFile

pytest.importorskip("argcomplete")


ANSWER = """
import io, json, os, sys
from launcher.command_line import build_parser
from launcher.completion import complete

def end(code=0):
    raise EOFError

def offered(line):
    os.environ |= {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": " ", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    answer = io.StringIO()
    try:
        complete(build_parser(), output_stream=answer, exit_method=end)
    except EOFError:
        return answer.getvalue().split()

print(json.dumps([offered(line) for line in sys.argv[1:]]))
"""


def test_verbs_options_files_and_fields_are_offered(tmp_path: Path) -> None:
    (tmp_path / "tune.yaml").touch()
    lines = [
        "sft ",
        "sft submit ",
        "sft train --un",
        "sft train tu",
        "sft train tune.yaml train.packs_per_s",
        "sft plan tune.yaml cluster.wor",
    ]
    # In a process of its own: argcomplete writes to file descriptors by their numbers.
    run = subprocess.run(
        [sys.executable, "-c", ANSWER, *lines],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    verbs, places, options, files, *fields = json.loads(run.stdout)
    assert {verb.split()[0] for verb in VERBS} <= set(verbs)
    assert {"slurm", "ray"} <= set(places)
    assert (options, files) == (["--unreviewed", "--until"], ["tune.yaml"])
    assert fields == [["train.packs_per_step="], ["cluster.workers="]]


def test_only_the_shell_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("_ARGCOMPLETE", raising=False)
    complete(build_parser(), exit_method=pytest.fail)


def test_every_field_that_is_offered_can_be_given() -> None:
    paths = list(field_paths())
    assert {"run.dir=", "data.holdout.share=", "slurm.partition=", "kubernetes.image=", "stages="} <= set(paths)
    assert len(paths) == len(set(paths))
    sections = {field.alias or name for name, field in JobFile.model_fields.items()}
    assert {re.split("[.=]", path)[0] for path in paths} == sections
    read_overrides({}, [f"{path}1" for path in paths])
