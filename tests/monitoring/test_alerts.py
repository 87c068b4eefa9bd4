"""What is posted to a webhook, against a real one on this machine: each thing once, soon, and without secrets."""

import threading
import time
from pathlib import Path

import pytest

from sft.config_file import ConfigError, build_config
from sft.config_logging import AlertsConfig
from sft.errors import UserError
from sft.monitoring.alerts import alerts_posted
from sft.run_events import EventLog, read_events
from sft.run_folder import RunFolder
from sft.url_secrets import without_secrets
from tests.test_config_file import LEAST
from tests.webhook import webhook


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.attempt(1).path.mkdir(parents=True)
    EventLog(run.attempt(1), 0).add("spike", "of an earlier start", stage="broad", step=1)
    return run


def test_what_happens_is_posted_once_in_order_and_the_end_last(run: RunFolder) -> None:
    with webhook() as hook, alerts_posted(AlertsConfig(url=hook.url), run, "tuned", look_seconds=0.1) as post_end:
        run.attempt(2).path.mkdir()
        ranks = EventLog(run.attempt(2), 0)
        ranks.add("restarted", "attempt 1 ended: rank 3 <node a> was gone")
        ranks.add("resumed", "going on at step 40", stage="broad", step=40)
        ranks.add("checkpoint", "one was damaged")
        EventLog(run.attempt(2), "driver").add("waiting", "attempt 2: node n7 was lost. No other has begun")
        ranks.add("spike", "step 41, packs 3 to 4: the loss is 9.000", stage="broad", step=41)
        hook.wait_for(3)  # without an end
        post_end("finished", "")
    assert [(alert["event"], alert.get("stage"), alert.get("step")) for alert in hook.alerts] == [
        ("restarted", None, None),
        ("waiting", None, None),
        ("spike", "broad", 41),
        ("finished", None, None),
    ]
    first = hook.alerts[0]
    assert first["text"] == "tuned: restarted: attempt 1 ended: rank 3 &lt;node a&gt; was gone", "as Slack wants it"
    assert first["message"] == "attempt 1 ended: rank 3 <node a> was gone"
    assert (first["run"], first["run_dir"], first["attempt"]) == ("tuned", str(run.path), 2)
    assert hook.alerts[3]["text"] == "tuned: finished"


def test_of_many_spikes_one_is_posted(run: RunFolder) -> None:
    with webhook() as hook, alerts_posted(AlertsConfig(url=hook.url), run, "tuned") as post_end:
        run.attempt(2).path.mkdir()
        for step in range(20):
            EventLog(run.attempt(2), 0).add("spike", f"step {step}", step=step)
        post_end("stopped", "on request")
    assert [alert["text"] for alert in hook.alerts] == ["tuned: loss spike: step 0", "tuned: stopped: on request"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("run.dir cannot be used"), "tuned: failed: run.dir cannot be used"),
        (OSError("no space"), "tuned: failed: OSError: no space"),
        (KeyboardInterrupt(), "tuned: stopped: interrupted; the same command goes on"),
    ],
)
def test_an_exception_is_posted_as_the_end_that_it_is(run: RunFolder, error: BaseException, text: str) -> None:
    with webhook() as hook, pytest.raises(type(error)), alerts_posted(AlertsConfig(url=hook.url), run, "tuned"):
        raise error
    assert [alert["text"] for alert in hook.alerts] == [text]


def test_a_webhook_that_is_out_of_order_for_a_moment_is_tried_again(run: RunFolder) -> None:
    with webhook(503) as hook, alerts_posted(AlertsConfig(url=hook.url), run, "tuned") as post_end:
        post_end("finished", "")
    assert (len(hook.alerts), hook.num_requests) == (1, 2)


def test_a_webhook_that_refuses_is_told_of_once_without_its_url(run: RunFolder) -> None:
    with webhook(404, 404) as hook, alerts_posted(AlertsConfig(url=hook.url), run, "tuned") as post_end:
        run.attempt(2).path.mkdir()
        post_end("failed", "one")
        post_end("failed", "two")
    assert hook.num_requests == 2, "what it refuses is not sent again"
    (event,) = read_events(run.attempt(2))
    assert (event.kind, event.text) == (
        "sink",
        "alerts.url: the alert `failed` was not accepted: HTTP status 404. Later failures are not reported.",
    )


def test_a_webhook_that_does_not_answer_holds_up_the_end_for_a_few_seconds(run: RunFolder) -> None:
    with webhook(None) as hook:
        started = time.monotonic()
        with alerts_posted(AlertsConfig(url=hook.url), run, "tuned", end_seconds=0.5) as post_end:
            post_end("finished", "")
        assert hook.alerts == []
        assert time.monotonic() - started < 4


def test_a_message_loses_its_secrets(run: RunFolder) -> None:
    with webhook() as hook, alerts_posted(AlertsConfig(url=hook.url), run, "tuned") as post_end:
        post_end("failed", "s3://me:hunter22@bucket/run is gone, see Bearer abcdefgh12345678")
    assert "hunter22" not in str(hook.alerts)
    assert "abcdefgh12345678" not in str(hook.alerts)


def test_the_url_may_stand_in_the_environment(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook() as hook:
        monkeypatch.setenv("MY_HOOK", hook.url)
        with alerts_posted(AlertsConfig(url="$MY_HOOK"), run, "tuned") as post_end:
            post_end("finished", "")
    assert len(hook.alerts) == 1


@pytest.mark.parametrize(("value", "problem"), [("", "is not set here"), ("ftp://a/b", "does not hold an https")])
def test_a_variable_without_a_url_is_refused(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, value: str, problem: str
) -> None:
    monkeypatch.setenv("MY_HOOK", value)
    refused = pytest.raises(UserError, match=f"alerts.url: the environment variable MY_HOOK {problem}")
    with refused, alerts_posted(AlertsConfig(url="$MY_HOOK"), run, "tuned"):
        pytest.fail("it must not begin")


def test_without_a_url_nothing_is_posted(run: RunFolder) -> None:
    before = set(threading.enumerate())
    with alerts_posted(AlertsConfig(), run, "tuned") as post_end:
        post_end("finished", "")
        assert set(threading.enumerate()) <= before


def test_the_path_of_a_webhook_is_a_secret_as_soon_as_the_config_is_read() -> None:
    url = "https://hooks.example.org/services/T00000000/B00000000/SECRET1234"
    config = build_config({**LEAST, "alerts": {"url": url}})
    assert config.alerts.url == url
    assert without_secrets(f"posting to {url} failed: /services/T00000000/B00000000/SECRET1234") == (
        "posting to https://hooks.example.org/*** failed: /***"
    )


def test_a_url_of_another_kind_is_refused_in_words() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({**LEAST, "alerts": {"url": "hooks.example.org"}})
    (problem,) = caught.value.problems
    assert (problem.path, problem.rule) == ("alerts.url", "must begin with https:// or http://, or be $NAME")
