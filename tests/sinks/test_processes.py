"""A sink that fails, hangs or cannot be loaded costs the training nothing, and one event says what happened."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sft.config_logging import LoggingConfig
from sft.errors import UserError
from sft.run_events import read_events
from sft.run_folder import RunFolder
from sft.sinks.processes import SinkRequest, sinks_fed
from sft.sinks.table import check_sinks, wanted_sinks
from tests.sinks.runs import NUM_STEPS, begin_attempt, planned_run, train


def events(run: RunFolder) -> list[str]:
    return [event.text for event in read_events(run.attempt(1)) if event.kind == "sink"]


def wait_for_event(run: RunFolder) -> str:
    deadline = time.monotonic() + 60
    while not events(run):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (text,) = events(run)
    return text


def sink_pids() -> list[int]:
    """Of the sinks' processes that this one has started."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"sft.sinks" in path.read_bytes():
                pids.append(int(path.parent.name))
        except OSError:
            continue
    return pids


def started_sink() -> int:
    """The process of the only sink. The system shows no command line of a program in its first moment."""
    deadline = time.monotonic() + 10
    while not (found := sink_pids()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (pid,) = found
    return pid


def test_a_sink_that_cannot_begin_is_told_of_once_and_its_log_says_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a login would be
    logging = {"tensorboard": False, "wandb": {"project": "tuning"}}
    config, run = planned_run(tmp_path / "run", logging=logging)
    with sinks_fed(config, first_attempt=1):
        begin_attempt(run, 1)  # it fails before or after this
        train(run, "broad", range(3))
        text = wait_for_event(run)
    assert text.startswith("Weights & Biases gets no more metrics until the next start, which sends what is missing: ")
    assert "No API key configured" in text
    assert "No API key configured" in run.sink_log("wandb").read_text()
    assert events(run) == [text]


def test_a_sink_that_hangs_is_ended(tmp_path: Path) -> None:
    config, run = planned_run(tmp_path / "run")
    begin_attempt(run, 1)
    with sinks_fed(config, first_attempt=1, silent_seconds=3):
        pid = started_sink()
        os.kill(pid, signal.SIGSTOP)
        text = wait_for_event(run)
        assert sink_pids() == []
    assert text.startswith("TensorBoard gets no more metrics until the next start, which sends what is missing: ")
    assert "no sign of life for 3 s" in text
    assert events(run) == [text]


def test_a_sink_that_does_not_come_to_its_end_is_not_waited_for(tmp_path: Path) -> None:
    config, run = planned_run(tmp_path / "run")
    begin_attempt(run, 1)
    with sinks_fed(config, first_attempt=1, end_seconds=0.2):
        pid = started_sink()
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert sink_pids() == []
    (text,) = events(run)
    assert "it did not send the rest in time after the training ended" in text


def test_a_sink_sends_the_rest_and_ends_where_its_driver_was_killed(tmp_path: Path) -> None:
    config, run = planned_run(tmp_path / "run")
    train(run, "broad", range(3))
    stdin, driver = os.pipe()
    os.set_inheritable(stdin, False)
    request = SinkRequest("tensorboard", config.logging, run.path, "tuned", tuple(NUM_STEPS), end_seconds=60)
    ears, mouth = os.pipe()
    command = [sys.executable, "-m", "sft.sinks", str(mouth)]
    process = subprocess.Popen(command, stdin=stdin, pass_fds=(mouth,))
    os.write(driver, pickle.dumps(request))
    for number in (driver, ears, stdin, mouth):
        os.close(number)
    assert process.wait(60) == 0
    assert json.loads(run.sink_state("tensorboard").read_text())["state"]["stages"]["broad"]["step"] == 2


@pytest.mark.parametrize(
    ("section", "missing", "text"),
    [
        ({"wandb": {"project": "p"}}, "wandb", "logging.wandb: the package wandb is not installed here"),
        ({"wandb": {"project": "p"}}, "wandb", "pip install 'sft[wandb]'"),
        ({"mlflow": {"tracking_uri": "file:///x"}}, "mlflow", "pip install 'sft[mlflow]'"),
        (
            {"mlflow": {"tracking_uri": "sqlite:///x.db"}},
            "sqlalchemy",
            "with `pip install mlflow`",
        ),
        ({"mlflow": {}}, "", "logging.mlflow.tracking_uri: nothing is given, and MLFLOW_TRACKING_URI is not set"),
    ],
)
def test_what_is_missing_for_a_sink_is_said_before_the_training(
    monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], missing: str, text: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # As for Python a module is that cannot be imported.
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError) as caught:
        check_sinks(LoggingConfig.model_validate(section))
    assert text in str(caught.value)


def test_what_is_missing_for_several_sinks_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    section = {"wandb": {"project": "p"}, "mlflow": {"tracking_uri": "https://example.org"}}
    with pytest.raises(UserError) as caught:
        check_sinks(LoggingConfig.model_validate(section))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["logging.wandb", "logging.mlflow"]


def test_a_run_asks_for_no_sink_but_tensorboard_unless_it_is_told() -> None:
    assert wanted_sinks(LoggingConfig()) == ["tensorboard"]
    assert wanted_sinks(LoggingConfig(tensorboard=False)) == []
    check_sinks(LoggingConfig())
