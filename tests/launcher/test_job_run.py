"""What `sft train` says at its end."""

import io
from pathlib import Path

import pytest

from launcher.console import FitConsole
from launcher.exit_codes import FAILED
from launcher.job_run import _say_failed
from sft.run_folder import RunFolder


@pytest.mark.parametrize("there", [(), ("attempts",), ("ray.log",), ("attempts", "ray.log")])
def test_only_logs_that_are_there_are_named(tmp_path: Path, there: tuple[str, ...]) -> None:
    run, out = RunFolder(tmp_path), io.StringIO()
    for name in there:
        (tmp_path / name).mkdir()
    assert _say_failed("it cannot be", run, FitConsole(file=out, width=300)) == FAILED
    first, *named = out.getvalue().splitlines()
    assert first == "The training cannot go on: it cannot be"
    assert [line.rpartition("/")[2] for line in named] == list(there)
