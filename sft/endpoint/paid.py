"""Replies that are kept by the content of their request, so that each is paid once."""

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sft.disk_words import MAKE_ROOM, told_of_disk
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply, read_kept_reply
from sft.errors import UserError
from sft.json_lines import append_line, whole_lines
from sft.schema import JsonObject

if TYPE_CHECKING:
    from sft.endpoint.client import Done, EndpointClient


class PaidReplies:
    """A file of replies. One process writes it at a time."""

    def __init__(self, path: Path) -> None:
        """Read what is there; the folder exists.

        Raises:
            UserError: a line is damaged, or the file cannot be read.
        """
        self._path = path
        self._replies = dict(_read(path)) if path.is_file() else {}

    def chat_all(self, client: "EndpointClient", requests: Iterable[ChatRequest], done: "Done") -> None:
        """As `EndpointClient.chat_all`; what was answered before is not asked, and each reply is kept before `done`.

        Raises:
            UserError: the disk is full, or see `EndpointClient.chat_all`.
        """
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
                self._append({"request": name, "key": request.key, "reply": outcome.as_json()})
                self._replies[name] = outcome
            for same in new[name]:
                done(same, outcome)

        if new:
            client.chat_all((same[0] for same in new.values()), keep)

    def _append(self, line: JsonObject) -> None:
        with told_of_disk(self._path, MAKE_ROOM):
            append_line(self._path, line)


def _read(path: Path) -> Iterator[tuple[str, ChatReply]]:
    try:
        for number, line in enumerate(whole_lines(path), 1):
            yield _read_line(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_line(line: bytes, place: str) -> tuple[str, ChatReply]:
    try:
        content = json.loads(line)
        return content["request"], read_kept_reply(content["reply"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place} is damaged ({error!r}). Remove this line: its request is then paid again.") from None


def _name(client: "EndpointClient", request: ChatRequest) -> str:
    """That of the request: its content, and who is asked."""
    content = {"url": client.endpoint.url, "model": client.endpoint.model, **request.content()}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
