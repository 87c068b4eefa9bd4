"""`sft plan` and the Hub: the real client of the Hub, and a server on this machine in the Hub's place."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from huggingface_hub import constants

from sft.sizing.hub_config import fetch_config
from tests.forked_ranks import warm_command
from tests.sizing.models import LLAMA_8B

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "llama3_8b_1node.yaml"
MODEL = "meta-llama/Meta-Llama-3-8B"
TOKEN = "hf_canary0canary0canary0canary0"


class Answers(BaseHTTPRequestHandler):
    """For one model those of the Hub; other models are another kind of trouble each."""

    server: "Hub"
    content = json.dumps(LLAMA_8B).encode()
    trouble = {"o/none": 404, "o/gated": 403, "o/closed": 401, "o/ill": 503}
    codes = {"o/none": "RepoNotFound", "o/gated": "GatedRepo", "o/closed": "RepoNotFound"}

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        self.server.seen.append((self.command, self.path, self.headers.get("authorization")))
        model = self.path.strip("/").partition("/resolve/")[0]
        if model == "o/silent":
            self.server.ended.wait(60)
            return
        self.send_response(self.trouble.get(model, 200))
        if model in self.codes:
            self.send_header("X-Error-Code", self.codes[model])
        size = 3_000_000 if model == "o/large" else len(self.content)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", '"e1"')
        self.send_header("Content-Length", str(0 if model in self.trouble else size))
        self.end_headers()
        if with_content and model not in self.trouble:
            self.wfile.write(self.content)

    def log_message(self, *words: object) -> None:
        """Nothing is logged."""


class Hub(ThreadingHTTPServer):
    """In the Hub's place, on a free port of this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.seen: list[tuple[str, str, str | None]] = []
        """(command, path, authorization) of each request"""
        self.ended = threading.Event()


@contextmanager
def running() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as server:
        yield server


OTHERS = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_CACHE", "HF_HOME")


def variables(home: Path, endpoint: str) -> dict[str, str]:
    given = {"HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN}
    return {**given, "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}


def address(hub: Hub, user: str = "") -> str:
    return f"http://{user}127.0.0.1:{hub.server_address[1]}"


def fetch(home: Path, endpoint: str, *models: str, seconds: float = 30) -> list[str | None]:
    """What is said of each of these models. Each is fetched by a process of its own, which reads the variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OTHERS:
            patch.delenv(name, raising=False)
        for name, value in variables(home, endpoint).items():
            patch.setenv(name, value)
        # What this process has read from them when it began.
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(home / ".cache" / "huggingface" / "hub"))
        said = [fetch_config(model, seconds) for model in models]
    assert TOKEN not in str(said)
    return said


def plan(home: Path, endpoint: str, *arguments: str) -> dict[str, Any]:
    # A fork looks how examples are laid. It has another home, and asks nobody.
    look = f"launcher.layout_check.own_module = lambda name: {warm_command('sft.model.first_look')}"
    code = f"import sys, launcher.cli, launcher.layout_check\n{look}\nsys.exit(launcher.cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "plan", str(CONFIG), "--json", *arguments]
    own = {name: value for name, value in os.environ.items() if name not in OTHERS} | variables(home, endpoint)
    run = subprocess.run(command, env=own, capture_output=True, text=True, timeout=200)
    assert (run.returncode, run.stderr) == (0, "")
    assert TOKEN not in run.stdout
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_a_plan_fetches_the_config_of_a_model_once_and_says_so(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / ".cache" / "sft").mkdir(parents=True)  # where it is kept how examples are laid
    offline = plan(tmp_path, address(hub), "--offline")
    assert (offline["model"], hub.seen) == (None, [])
    first = plan(tmp_path, address(hub, "anyone:secret@"))
    asked = list(hub.seen)
    assert {path for _, path, _ in asked} == {f"/{MODEL}/resolve/main/config.json"}, "and nothing else of the model"
    assert f"({len(Answers.content):,} bytes) was fetched from {address(hub)} and is kept" in str(first["findings"])
    assert "secret" not in str(first)
    again = plan(tmp_path, address(hub))
    assert asked == hub.seen
    assert first["model"] == again["model"]
    assert first["model"]["num_parameters"] == 8_030_261_248
    assert not any("was fetched" in finding for finding in again["findings"])


REASONS = {
    "o/none": "there is no such model, or only for those who are logged in",
    "o/closed": "there is no such model, or only for those who are logged in",
    "o/gated": "the model is gated",
    "o/ill": "it answers with status 503",
    "o/large": "it has 3,000,000 bytes",
}


@pytest.mark.parametrize("models", [["o/gated", "o/large"], pytest.param([*REASONS], marks=pytest.mark.long)])
def test_what_the_hub_does_not_give_is_said_in_words(hub: Hub, tmp_path: Path, models: list[str]) -> None:
    for model, said in zip(models, fetch(tmp_path, address(hub), *models), strict=True):
        assert said is not None
        assert said.startswith(f"model: the config.json of {model} was not fetched from {address(hub)}: ")
        assert REASONS[model] in said
    assert not [command for command, _, _ in hub.seen if command == "GET"]


def test_a_token_goes_to_the_hub_and_is_not_shown(hub: Hub, tmp_path: Path) -> None:
    assert "was fetched" in str(fetch(tmp_path, address(hub), MODEL))
    assert {token for _, _, token in hub.seen} == {f"Bearer {TOKEN}"}


def test_a_hub_that_is_not_there_or_does_not_answer_costs_a_bounded_time(tmp_path: Path) -> None:
    with running() as server:
        started = monotonic()
        [said] = fetch(tmp_path, address(server), "o/silent", seconds=1.0)
        assert "it did not come within 1 seconds" in str(said)
        assert monotonic() - started < 30
        gone = address(server)
    assert "it cannot be reached" in str(fetch(tmp_path, gone, MODEL))


def test_what_is_no_id_or_lies_here_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    assert fetch(tmp_path, address(hub), str(tmp_path), "/nowhere/model", "a/b/c") == [None] * 3
    assert hub.seen == []
