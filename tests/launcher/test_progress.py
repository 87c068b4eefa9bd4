"""What the console says of a start: where it goes on; and of a loss after which none comes."""

import io
from pathlib import Path

import pytest

from launcher.console import FitConsole
from launcher.progress import RunProgress, _Happenings
from sft.attempt_record import write_rank
from sft.run_events import EventLog, read_events
from sft.run_folder import RunFolder
from sft.training.last_words import NODE
from sft.world import World


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


@pytest.mark.parametrize("follows", [True, False])
def test_a_loss_is_told_of_where_no_attempt_follows_and_once(tmp_path: Path, follows: bool) -> None:
    run = RunFolder(tmp_path)
    happenings = _Happenings(run, patience_seconds=0.0)
    run.attempt(1).path.mkdir(parents=True)
    write_rank(run.attempt(1), World(0, 2, node="n7"))
    EventLog(run.attempt(1), "nodes").add("lost", "node n7 has left the Ray cluster", how=NODE, node="n7")
    if follows:
        run.attempt(2).path.mkdir()
    told = [event.text for _ in range(2) for event in happenings.read_new()]
    assert len(told) == (not follows)
    recorded = [event.text for event in read_events(run.attempt(1)) if event.kind == "waiting"]
    assert recorded == told, "alerts are posted of events"
    assert all("node n7" in text and "No other has begun since then" in text for text in told)
