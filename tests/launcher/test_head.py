"""Whether anything answers at an address, in seconds."""

import socket
import threading
import time

import pytest

from launcher.cluster.connection import ray_session
from launcher.cluster.head import answers, answers_within
from sft.errors import UserError


@pytest.fixture
def port() -> int:
    """Free, and nothing listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_head_is_seen_by_every_form_of_its_address(port: int) -> None:
    assert not answers(f"127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", port)):
        assert answers(f"127.0.0.1:{port}")
        assert answers(f"localhost:{port}")
        assert answers(f"ray://127.0.0.1:{port}")
    assert answers("auto"), "Ray's own words are not looked at"


def test_one_that_is_just_starting_is_waited_for(port: int) -> None:
    listening = threading.Timer(0.5, lambda: servers.append(socket.create_server(("127.0.0.1", port))))
    servers: list[socket.socket] = []
    listening.start()
    assert answers_within(f"127.0.0.1:{port}", 20)
    listening.join()
    servers[0].close()


def test_a_cluster_that_is_not_there_is_said_at_once_and_not_after_minutes(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(UserError, match="nothing answers there"), ray_session(0, 0, 0):
        pass
    assert time.monotonic() - started < 20
