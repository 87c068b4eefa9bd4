"""Posts events of a run to a webhook, as JSON with the field `text` that Slack and similar services show.

The process that holds the run folder's lock posts (the driver, or under torchrun the first rank), so each alert comes
once. It posts from a thread: a webhook that is slow or gone delays only the end of that process, by a few seconds.
"""

import json
import os
import queue
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from sft.config_logging import AlertsConfig
from sft.errors import UserError
from sft.run_events import Event, EventLog, EventTail
from sft.run_folder import RunFolder
from sft.url_secrets import hide_secrets, remember_path

Kind = Literal["failed", "restarted", "waiting", "spike", "skipped", "forgotten", "finished", "stopped"]
"""What is posted. `failed`, `finished` and `stopped` report the end of the job, the others events of the same name."""

_OF_EVENTS: tuple[Kind, ...] = ("restarted", "waiting", "spike", "skipped", "forgotten")
_OFTEN_SECONDS = {"spike": 600.0, "skipped": 600.0}
"""At most one alert of these kinds in this time, because a bad training has many; the next alert counts the others."""

_LOOK_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_TRIES = 3
_END_SECONDS = 5.0
_MAX_TEXT_CHARS = 1500

End = Callable[[Kind, str], None]
"""Posts how the job has ended; the text may be empty."""


def webhook(alerts: AlertsConfig) -> str | None:
    """The URL to post to, read from the environment if the config says so; its path counts as a secret from now on.

    Raises:
        UserError: the variable is not set, or does not hold such a URL.
    """
    if alerts.url is None or not alerts.url.startswith("$"):
        return alerts.url
    url = os.environ.get(alerts.url[1:], "")
    remember_path(url)
    if not re.match(r"https?://[^/\s]", url):
        problem = "does not hold an https:// or http:// URL" if url else "is not set here"
        raise UserError(
            f"alerts.url: the environment variable {alerts.url[1:]} {problem}. Set it where sft train runs."
        )
    return url


@contextmanager
def alerts_posted(
    alerts: AlertsConfig,
    run: RunFolder,
    name: str,
    look_seconds: float = _LOOK_SECONDS,
    end_seconds: float = _END_SECONDS,
) -> Iterator[End]:
    """While open, posts events of the run's new attempts; yields a function that posts the end of the job.

    An exception that leaves it is posted as a failure; an interrupt by the user is posted as a stop.

    Args:
        alerts: where to post; without a URL, nothing is posted.
        run: the events are read from its folder.
        name: the name of the run.
        look_seconds: the time between two looks for events.
        end_seconds: the time that the last alerts may take when it is closed.

    Raises:
        UserError: see `webhook`.
    """
    url = webhook(alerts)
    if url is None:
        yield lambda kind, text: None
        return
    poster = _Poster(url, run, name, look_seconds)
    try:
        yield poster.add
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            poster.add("stopped", "interrupted; the same command goes on")
        else:
            poster.add("failed", str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        poster.close(end_seconds)


class _Poster:
    """The thread that looks for events and posts."""

    def __init__(self, url: str, run: RunFolder, name: str, look_seconds: float) -> None:
        self._url, self._run, self._name, self._look_seconds = url, run, name, look_seconds
        self._first_attempt = run.latest_attempt() + 1
        self._events = EventTail(run, self._first_attempt)
        self._held_until: dict[str, float] = {}
        self._num_held: dict[str, int] = {}
        self._told = False
        self._ends: queue.SimpleQueue[tuple[Kind, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    def add(self, kind: Kind, text: str) -> None:
        self._ends.put((kind, text))

    def close(self, seconds: float) -> None:
        self._ends.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            try:
                end = self._ends.get(timeout=self._look_seconds)
            except queue.Empty:
                self._post_events()
                continue
            self._post_events()
            if end is None:
                return
            kind, text = end
            self._post(kind, text, {})

    def _post_events(self) -> None:
        with suppress(OSError):  # the run folder cannot be read now; it is read again later
            for attempt, event in self._events.read_new():
                if event.kind in _OF_EVENTS:
                    self._post_event(event.kind, attempt, event)

    def _post_event(self, kind: Any, attempt: int, event: Event) -> None:
        if time.monotonic() < self._held_until.get(kind, 0.0):
            self._num_held[kind] = self._num_held.get(kind, 0) + 1
            return
        self._held_until[kind] = time.monotonic() + _OFTEN_SECONDS.get(kind, 0.0)
        held = self._num_held.pop(kind, 0)
        text = f"{event.text} (and {held} more since the last alert)" if held else event.text
        facts = {name: event.facts[name] for name in ("stage", "step") if name in event.facts}
        self._post(kind, text, {"attempt": attempt, **facts})

    def _post(self, kind: Kind, message: str, facts: dict[str, Any]) -> None:
        message = str(hide_secrets(message))[:_MAX_TEXT_CHARS]
        text = f"{self._name}: {'loss spike' if kind == 'spike' else kind}{': ' if message else ''}{message}"
        alert = {
            # Slack would read text in angle brackets as a mention or a link.
            "text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
            "event": kind,
            "message": message,
            "run": self._name,
            "run_dir": str(self._run.path),
            "host": socket.gethostname(),
            "time": time.time(),
            **facts,
        }
        why = _send(self._url, json.dumps(alert).encode())
        if why is not None and not self._told:
            self._told = True
            self._tell(f"alerts.url: the alert `{kind}` was not accepted: {why}. Later failures are not reported.")

    def _tell(self, text: str) -> None:
        number = self._run.latest_attempt()
        if number >= self._first_attempt:
            EventLog(self._run.attempt(number), "alerts").add("sink", text)
        else:
            sys.stderr.write(f"{hide_secrets(text)}\n")


def _send(url: str, content: bytes) -> str | None:
    """Post it, in a few tries; returns why it was not accepted, or None if it was."""
    headers = {"Content-Type": "application/json", "User-Agent": "sft"}
    why = None
    for i in range(_TRIES):
        time.sleep(i)  # this thread may sleep: the end of the job waits for it only for a limited time
        try:
            request = urllib.request.Request(url, content, headers)
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            why = f"HTTP status {error.code}"
            if error.code < 500 and error.code != 429:
                return why
        except (OSError, ValueError) as error:  # ValueError: the server does not speak HTTP
            why = str(hide_secrets(str(getattr(error, "reason", error))))
    return why
