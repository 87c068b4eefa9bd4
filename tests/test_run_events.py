"""The events of a run, read while several writers add to them, in attempts that come one after the other."""

from pathlib import Path

import pytest

from sft.run_events import NO_RANK, EventLog, EventTail, read_events
from sft.run_folder import RunFolder


def begin(run: RunFolder, attempt: int) -> RunFolder:
    run.attempt(attempt).path.mkdir(parents=True)
    return run


def test_each_event_comes_once_with_its_attempt_also_from_who_learns_of_its_end_later(tmp_path: Path) -> None:
    run = begin(RunFolder(tmp_path), 1)
    early = EventTail(run, first_attempt=2)
    EventLog(run.attempt(1), 0).add("spike", "one")
    everything = EventTail(run)
    assert [(number, event.text) for number, event in everything.read_new()] == [(1, "one")]
    begin(run, 2)
    EventLog(run.attempt(2), 1).add("resumed", "two", stage="broad", step=3)
    EventLog(run.attempt(1), "controller").add("lost", "three", rank=0)
    for tail, texts in ((everything, [(1, "three"), (2, "two")]), (early, [(2, "two")])):
        assert [(number, event.text) for number, event in tail.read_new()] == texts
        assert tail.read_new() == []
    assert [event.rank for event in read_events(run.attempt(1))] == [0, NO_RANK]
    begin(run, 3)
    with run.attempt(2).events(1).open("a") as file:
        file.write("no event\n[]\n")
    EventLog(run.attempt(3), 0).add("failed", "four")
    assert [(number, event.text) for number, event in everything.read_new()] == [(3, "four")]


def test_what_cannot_be_written_goes_to_the_log_and_stops_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    EventLog(RunFolder(tmp_path).attempt(1), 0).add("notice", "there is no folder")
    assert "there is no folder" in capfd.readouterr().err
