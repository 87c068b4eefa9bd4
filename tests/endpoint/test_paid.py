"""Replies that are paid lie in a file: what is wrong with it is a message."""

from pathlib import Path

import pytest

from sft.endpoint.chat import ChatRequest
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint, Patience
from sft.endpoint.paid import PaidReplies
from sft.errors import UserError
from tests.endpoint.chat_server import chat_server


@pytest.mark.parametrize(
    "line", ["{", "3", '{"request": "a"}', '{"request": "a", "reply": {}}', '{"request": "a", "reply": 3}']
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(f'{line}\n{{"half')
    with pytest.raises(UserError, match=r"replies.jsonl:1 is damaged .* Remove this line"):
        PaidReplies(path)


def test_a_reply_that_cannot_be_kept_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    request = ChatRequest("a", [{"role": "user", "content": "one"}], 8)
    with chat_server() as server:
        paid, client = PaidReplies(path), EndpointClient(Endpoint(server.url, "tiny"), Patience(seconds=20))
        path.mkdir()
        with pytest.raises(UserError, match=r"replies.jsonl cannot be written: Is a directory. Make room"):
            paid.chat_all(client, [request], lambda request, outcome: None)
