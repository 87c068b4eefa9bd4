"""Replies that are kept by the content of their request, so that each is paid once."""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from sft.endpoint.chat import ChatReply, ChatRequest, NoReply, read_kept_reply
from sft.endpoint.client import Done, EndpointClient
from sft.json_lines import append_line, whole_lines


class PaidReplies:
    """A file of replies. One process writes it at a time."""

    def __init__(self, path: Path) -> None:
        """Read what is there; the folder exists."""
        self._path = path
        lines = (json.loads(line) for line in whole_lines(path)) if path.is_file() else ()
        self._replies = {line["request"]: read_kept_reply(line["reply"]) for line in lines}

    def chat_all(self, client: EndpointClient, requests: Iterable[ChatRequest], done: Done) -> None:
        """As `EndpointClient.chat_all`; what was answered before is not asked, and each reply is kept before `done`."""
        new: dict[str, list[ChatRequest]] = {}
        for request in requests:
            name = _name(client, request)
            if kept := self._replies.get(name):
                done(request, kept)
            else:
                new.setdefault(name, []).append(request)

        def keep(request: ChatRequest, outcome: ChatReply | NoReply) -> None:
            name = _name(client, request)
            if isinstance(outcome, ChatReply):
                append_line(self._path, {"request": name, "key": request.key, "reply": outcome.as_json()})
                self._replies[name] = outcome
            for same in new[name]:
                done(same, outcome)

        if new:
            client.chat_all((same[0] for same in new.values()), keep)


def _name(client: EndpointClient, request: ChatRequest) -> str:
    """That of the request: its content, and who is asked."""
    content = {"url": client.endpoint.url, "model": client.endpoint.model, **request.content()}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
