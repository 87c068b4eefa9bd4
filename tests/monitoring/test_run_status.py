"""The state of a run, as its folder tells it. What a real run shows is looked at in tests/cluster/test_killed.py."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launcher.console import FitConsole
from launcher.status import draw
from sft.errors import UserError
from sft.metrics import append_metrics
from sft.monitoring.run_status import RunWatcher
from sft.run_folder import RunFolder
from sft.run_lock import run_lock
from tests.monitoring.test_metrics_tail import step

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    stages = [{"name": "broad"}, {"name": "maths"}]
    folder.path.mkdir()
    folder.config.write_text(yaml.safe_dump({"run": {"name": "tiny"}, "checkpoint": {}, "stages": stages}))
    for index, name in enumerate(("broad", "maths")):
        packs = folder.stage(index, name).packs
        packs.mkdir(parents=True)
        (packs / "manifest.json").write_text(json.dumps({"num_steps": 1000, "num_tokens": 100_000}))
    return folder


def begin(run: RunFolder, attempt: int, why: str | None, message: str = "") -> None:
    folder = run.attempt(attempt)
    folder.path.mkdir(parents=True)
    folder.began.write_text(json.dumps({"time": time.time(), "world_size": 2}))
    folder.rank(1).write_text(json.dumps({"pid": 7, "node": "b"}))
    if why is not None:
        folder.ended.write_text(json.dumps({"why": why, "message": message}))


def test_a_run_that_has_not_begun(run: RunFolder) -> None:
    status = RunWatcher(run).read()
    assert (status.state, status.attempt, status.seconds_left) == ("not started", 0, None)
    assert [(stage.num_done, stage.num_steps) for stage in status.stages] == [(0, 1000), (0, 1000)]


@pytest.mark.parametrize(
    ("why", "state"), [("stopped", "stopped"), ("failed", "failed"), ("wrong input", "failed"), (None, "dead")]
)
def test_a_run_without_a_driver_says_how_it_ended(run: RunFolder, why: str | None, state: str) -> None:
    begin(run, 1, why, "it cannot be")
    status = RunWatcher(run).read()
    assert status.state == state
    assert ("it cannot be" in status.detail) == (state == "failed")


def test_a_running_one_shows_rates_time_left_restarts_and_the_slow_rank(run: RunFolder) -> None:
    begin(run, 1, None)
    begin(run, 2, None)
    events = [{"kind": "restarted", "text": "attempt 1 ended: rank 1 was gone", "rank": 0, "time": 1e9, "facts": {}}]
    run.attempt(2).events(0).write_text("".join(json.dumps(e) + "\n" for e in events))
    watcher = RunWatcher(run)
    for number in range(10):
        append_metrics(run.stage(0, "broad").metrics, step(number, attempt=2, slowest=1, slowdown=1.6))
    with run_lock(run.lock, on_lost=lambda text: None):
        status = watcher.read()
    assert status.state == "running"
    assert f"process {os.getpid()}" in status.detail
    broad = status.stages[0]
    assert (broad.num_done, broad.tokens_per_second, broad.seconds_left) == (10, 50.0, 990 * 2.0)
    assert status.seconds_left == pytest.approx(990 * 2.0 + 100_000 / 50.0)
    assert [(r.attempt, r.why) for r in status.restarts] == [(2, "rank 1 was gone")]
    assert status.straggler is not None
    assert (status.straggler.rank, status.straggler.node, status.straggler.slowdown) == (1, "b", 1.6)


def test_a_start_that_had_nothing_to_do_is_no_restart_and_one_that_trained_is(run: RunFolder) -> None:
    for attempt in (1, 2, 3):
        begin(run, attempt, "done")
    event = {"kind": "resumed", "text": "attempt 3: going on", "rank": 0, "time": 1e9, "facts": {}}
    run.attempt(3).events(0).write_text(json.dumps(event) + "\n")
    assert [restart.attempt for restart in RunWatcher(run).read().restarts] == [3]


def test_one_rank_is_said_as_one(run: RunFolder) -> None:
    begin(run, 1, "stopped")
    run.attempt(1).began.write_text(json.dumps({"time": time.time(), "world_size": 1}))
    out = io.StringIO()
    FitConsole(file=out, width=110).print(draw(RunWatcher(run).read()))
    assert out.getvalue().splitlines()[0] == "tiny  stopped, attempt 1 with 1 rank"


def test_a_driver_that_renews_its_lock_no_more_is_dead(run: RunFolder) -> None:
    begin(run, 1, None)
    with run_lock(run.lock, on_lost=lambda text: None):
        os.utime(run.lock, (time.time() - 300, time.time() - 300))
        assert RunWatcher(run).read().state == "dead"


def test_a_clock_that_is_minutes_off_changes_nothing(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(run, 1, None)
    now = time.time
    with run_lock(run.lock, on_lost=lambda text: None):
        monkeypatch.setattr(time, "time", lambda: now() + 300)
        assert RunWatcher(run).read().state == "running"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a run"):
        RunWatcher(RunFolder(tmp_path))


@pytest.mark.parametrize(
    "config", ["", "a: 1", "a: [", "run: {name: a}\nstages: 3\ncheckpoint: {}", "run: 1", '"{"', "checkpoint: []"]
)
def test_a_config_that_is_none_of_a_run_is_said(run: RunFolder, config: str) -> None:
    run.config.write_text(config)
    with pytest.raises(UserError, match=str(run.config)):
        RunWatcher(run)


def test_a_config_of_another_version_is_read(run: RunFolder) -> None:
    content = yaml.safe_load(run.config.read_text())
    run.config.write_text(yaml.safe_dump({**content, "checkpoint": {"dir": None, "of_another_version": 1}}))
    assert RunWatcher(run).read().state == "not started"


def test_what_a_person_has_copied_beside_the_attempts_is_none(run: RunFolder) -> None:
    begin(run, 1, "stopped")
    for name in ("0001.bak", "0002-old", "12"):
        (run.attempts / name).mkdir()
    status = RunWatcher(run).read()
    assert (status.state, status.attempt) == ("stopped", 1)


def test_what_is_shown_is_text_and_no_markup(run: RunFolder) -> None:
    begin(run, 1, "failed", "no [dim]room[/]\nat \\[a]")
    begin(run, 2, "failed", "no [dim]room[/]\nat \\[a]")
    event = {"kind": "restarted", "text": "attempt 1 ended: [rank1] was gone", "rank": 0, "time": 1e9, "facts": {}}
    run.attempt(2).events(0).write_text(json.dumps(event) + "\n")
    out = io.StringIO()
    FitConsole(file=out, width=110).print(draw(RunWatcher(run).read()))
    shown = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert shown[:3] == ["tiny failed, attempt 2 with 2 ranks", "no [dim]room[/]", "at \\[a]"]
    moment = time.strftime("%d %b %H:%M:%S", time.localtime(1e9))
    assert shown[-2:] == ["restarts 1", f"{moment} attempt 2: [rank1] was gone"]


def test_every_state_can_be_drawn_and_torch_is_not_imported(run: RunFolder) -> None:
    draw(RunWatcher(run).read())
    run.manifest.write_text('{"versions": {}}')
    program = (
        "import sys; from launcher.cli import main; code = main(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules; sys.exit(code)"
    )
    for options in ([], ["--json"]):
        command = [sys.executable, "-c", program, "status", str(run.path), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert "not started" in done.stdout
    assert json.loads(done.stdout)["stages"][1]["name"] == "maths"
