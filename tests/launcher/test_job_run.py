"""What `sft train` says at its end."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from launcher.cluster.trainer_process import Outcome, TrainerRequest
from launcher.console import FitConsole
from launcher.exit_codes import DONE, FAILED, STOPPED
from launcher.job_run import _say_end, _say_failed, _show_result
from sft.attempt_record import End, Why, write_end
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


@pytest.mark.parametrize("broken", ["records", "page"])
def test_a_report_that_cannot_be_made_is_a_warning_behind_a_finished_training(tmp_path: Path, broken: str) -> None:
    run, out = RunFolder(tmp_path / "a run"), io.StringIO()
    run.evaluations.mkdir(parents=True)
    if broken == "records":
        run.evaluation().write_text('{"name": 5}', encoding="utf-8")
    else:
        run.report.mkdir()
    assert _show_result(run.stage(0, "broad"), run, FitConsole(file=out, width=300)) == DONE
    warning, *rest = out.getvalue().splitlines()
    assert "report" in warning.lower(), "the warning does not say what cannot be made"
    assert warning.endswith(f"To try again: sft report '{run.path}'")
    assert rest == [f"model   {run.stage(0, 'broad').model}"]


@pytest.mark.parametrize(("why", "code"), [("done", DONE), ("stopped", STOPPED)])
def test_a_stop_is_over_when_it_is_obeyed_and_when_all_was_trained_before(tmp_path: Path, why: Why, code: int) -> None:
    """Else what follows, such as the report, would be ended by it."""
    run, request = RunFolder(tmp_path), cast(TrainerRequest, SimpleNamespace(trains=True))
    run.attempt(1).path.mkdir(parents=True)
    write_end(run.attempt(1), End(why))
    run.stop_file.touch()
    assert _say_end(Outcome("finished"), request, run, FitConsole(file=io.StringIO())) == code
    assert not run.stop_file.exists()
