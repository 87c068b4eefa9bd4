"""What becomes of a sink that fails: it is tried again for a while, and nothing is lost or doubled meanwhile."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sft.config_logging import LoggingConfig
from sft.run_folder import RunFolder
from sft.sinks.follower import follow
from sft.sinks.run_reader import RunReader
from sft.sinks.sink import End, Point
from tests.sinks.runs import STAGES, planned_run, train


class FailingSink:
    """A sink whose next calls fail, as often as `failures` says."""

    replaces, id, where = False, "", ""

    def __init__(self, failures: int, on_added: Callable[[], object]) -> None:
        self.failures, self.on_added = failures, on_added
        self.steps: list[int] = []

    @staticmethod
    def destination(logging: LoggingConfig) -> str:
        return ""

    def add(self, points: Sequence[Point]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the server is away")
        self.steps += [point.step for point in points]
        self.on_added()

    def close(self, end: End) -> None:
        raise AssertionError("the follower leaves this to who has opened it")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = planned_run(tmp_path / "run")[1]
    train(run, "broad", range(4))
    return run


def followed(run: RunFolder, failures: int, pauses: Sequence[float]) -> tuple[FailingSink, list[Any], int]:
    """The sink when it is over, each state that was kept, and the number of beats; it ends with the first points."""
    ended = threading.Event()
    sink, reader = FailingSink(failures, ended.set), RunReader(run, STAGES, False, {})
    kept: list[Any] = []
    beats: list[None] = []
    follow(reader, sink, lambda: kept.append(reader.state), lambda: beats.append(None), ended, pauses)
    return sink, kept, len(beats)


def test_a_sink_that_fails_for_a_while_gets_every_point_once(run: RunFolder) -> None:
    sink, kept, num_beats = followed(run, failures=2, pauses=(0.01, 0.01))
    assert sink.steps == [1, 2, 3, 4]
    assert [state["stages"]["broad"]["step"] for state in kept] == [3]
    assert num_beats >= 4, "it is seen to live while it waits"


def test_a_sink_that_goes_on_failing_is_given_up(run: RunFolder) -> None:
    with pytest.raises(ConnectionError, match="away"):
        followed(run, failures=3, pauses=(0.01, 0.01))


def test_after_the_end_a_sink_that_fails_is_not_waited_for(run: RunFolder) -> None:
    ended = threading.Event()
    ended.set()
    sink = FailingSink(1, ended.set)
    with pytest.raises(ConnectionError):
        follow(RunReader(run, STAGES, False, {}), sink, pytest.fail, lambda: None, ended, pauses=(1e6,))
