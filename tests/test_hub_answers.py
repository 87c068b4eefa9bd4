"""Whether the Hub is there is found out once, and only where something has to come from it."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from sft.errors import UserError
from sft.hub_answers import check_hub_answers
from tests.test_absolute_paths import config

Asked = Callable[[], int]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a model in it; the Hub's caches are empty, and the Hub may be asked."""
    (tmp_path / "here" / "models" / "qwen2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A Hub that answers that there is nothing; says how often it was asked."""
    questions: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            questions.append(self.path)
            self.send_error(404)

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield lambda: len(questions)
        server.shutdown()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody listens there."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port.getsockname()[1]}")
        yield


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("no_hub")
def test_a_slip_that_looks_like_an_id_is_said_at_once_with_all_others(here: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_hub_answers(config("modles/qwen2", "dta/train"))
    model, source, why = str(caught.value).splitlines()
    assert model == (
        f"model.path: there is no {here}/here/modles/qwen2; near it: models. As an id of the Hub it is not on this "
        "machine. Correct the path, or fetch it where the Hub answers: hf download modles/qwen2"
    )
    assert source.startswith(f"data.sources.one.path: there is no {here}/here/dta/train. As an id of the Hub")
    assert source.endswith("hf download dta/train --repo-type dataset")
    assert why.startswith("The Hub (http://127.0.0.1:")
    assert ") does not answer: ConnectError: " in why


@pytest.mark.usefixtures("no_hub")
def test_what_is_here_in_a_cache_or_not_to_be_asked_for_needs_no_hub(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "hub" / "models--owner--model").mkdir(parents=True)
    (here / "datasets" / "Owner___my_data").mkdir(parents=True)
    check_hub_answers(config(source="Owner/MyData"))
    check_hub_answers(config("models/qwen2", "data.jsonl"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_hub_answers(config("other/model"))


def test_a_hub_that_is_there_is_asked_once_whatever_it_says(asked: Asked) -> None:
    check_hub_answers(config("owner/model", "owner/data"))
    assert asked() == 1
