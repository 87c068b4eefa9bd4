"""A teacher on loopback, without a key."""

from collections.abc import Iterator

import pytest

from tests.construction.teaching import teach
from tests.endpoint.chat_server import ChatServer, chat_server


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(teach) as chat:
        yield chat
