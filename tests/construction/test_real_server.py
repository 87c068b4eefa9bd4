"""A construction against `transformers serve`, a real server of chat completions that knows nothing of this project."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.cli import main
from tests.conftest import SmallRecords
from tests.construction.talking import job_of, make_talking_model
from tests.construction.teaching import lines_of

AT_ONCE = 2
NUM = 20
RECIPES = ("rejection_sampling", "few_shot")
ASKED = "POST /v1/chat/completions"
_WAIT_SECONDS = 100.0


@pytest.mark.long
def test_records_from_a_real_server_are_paid_once(small_records: SmallRecords, tmp_path: Path) -> None:
    model = make_talking_model(tmp_path / "model", template="chatml")
    content = job_of(model, small_records, tmp_path)
    recipe = {"tasks": ["copy", "sort"], "num": NUM, "max_tokens": 24, "temperature": 1.0}
    content["construct"]["recipes"] = [
        {"kind": "rejection_sampling", "verify": "exact", "against": "majority", "answers": 2, **recipe},
        {"kind": "few_shot", **recipe},
    ]
    config, made = tmp_path / "config.yaml", tmp_path / "made"
    log = made / "log" / "replies.jsonl"
    with served(model, tmp_path / "server.log") as url:
        content["construct"]["teacher"] = {"endpoint": url, "model": str(model), "at_once": AT_ONCE}
        config.write_text(json.dumps(content))
        assert main(["construct", str(config), f"construct.budget.requests={NUM}"]) == 0
        assert len(lines_of(log)) == NUM
        assert main(["construct", str(config)]) == 0
        num_asked = (tmp_path / "server.log").read_text().count(ASKED)
    replies, manifest = lines_of(log), json.loads((made / "manifest.json").read_text())
    assert len({one["request"] for one in replies}) == len(replies) == num_asked
    assert manifest["is_complete"]
    assert manifest["num_wanted"] == 2 * NUM == manifest["num_kept"] + manifest["num_not_made"]
    kept = {name: sum(part["num_kept"] for part in manifest["parts"] if part["recipe"] == name) for name in RECIPES}
    assert kept == {"rejection_sampling": manifest["num_kept"], "few_shot": 0}, "random words are no JSON"
    assert manifest["num_kept"] >= NUM // 2
    records = lines_of(made / "records.jsonl")
    said = {one["reply"]["text"].strip() for one in replies if "reply" in one}
    assert len(records) == manifest["num_kept"]
    assert all(one["messages"][1]["content"] in said and one["provenance"]["num_tokens"] > 0 for one in records)


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """The address of the model, served by a process of its own that ends with this."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--log-level", "info"]
    away = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=away) as process,
    ):
        try:
            wait(lambda: is_healthy(port), process)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def wait(what: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Until it is so; fails if the process ends before, or it takes too long."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not what():
        assert process.poll() is None, process.args
        assert time.monotonic() < deadline, process.args
        time.sleep(0.01)


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
