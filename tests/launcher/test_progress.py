"""What the console says of a start: where it goes on."""

import io
from pathlib import Path

import pytest

from launcher.console import FitConsole
from launcher.progress import RunProgress
from sft.run_events import EventLog
from sft.run_folder import RunFolder


@pytest.mark.parametrize(("step", "is_said"), [(12, True), (0, False)])
def test_a_start_that_goes_on_says_where_and_one_that_begins_is_shown_by_its_bar(
    tmp_path: Path, step: int, is_said: bool
) -> None:
    run, out = RunFolder(tmp_path), io.StringIO()
    run.attempt(1).path.mkdir(parents=True)
    with RunProgress([], run, FitConsole(file=out, width=100)):
        run.attempt(2).path.mkdir()
        EventLog(run.attempt(2), 0).add("resumed", "attempt 2: going on at step 12 of broad", stage="broad", step=step)
    assert ("going on at step 12 of broad" in out.getvalue()) == is_said
