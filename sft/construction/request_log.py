"""All requests to the teacher and their answers, each a line: written before it is used, so that it is paid once.

    log/replies.jsonl   {"request": "9c…", "for": "few_shot/sort/3", "model": "big", "asked": {…}, "reply": {…}, …}

A request is named by its content, by who is asked, and by its place in its script, which tells equal requests apart.
Only names and places are in memory. A line with `failed` is a request that has no answer, and gets none. With `billed`
it had one of no use. Each line counts as spent, whoever writes or reads it.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sft.construction.folder import written_to
from sft.construction.offset_table import OffsetTable
from sft.construction.spending import Spending, taken_tokens
from sft.construction.teacher import TeacherId
from sft.endpoint.chat import ChatReply, NoReply, read_kept_reply
from sft.errors import UserError

PROBES = "probe"
"""The name, in place of a recipe's, of requests that are made to see whether a teacher still answers."""
_SYNC_SECONDS = 0.2
_NAME_CHARS = 32
_FAILED, _BILLED, _COUNTS = "failed", "billed", ("num_tokens", "num_prompt_tokens")
_SORTED = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the log holds of a request."""

    name: str
    outcome: ChatReply | NoReply
    date: str
    """The day of the answer, YYYY-MM-DD."""


class Logged(NamedTuple):
    """A request, as it stands in the log."""

    name: str
    script: str
    """Whose it is."""
    teacher: TeacherId
    asked: Mapping[str, Any]
    """Its content."""


def request_name(teacher: TeacherId, asked: Mapping[str, Any], place: str) -> str:
    """The name of a request of this content to this teacher at this place of a script: 32 hexadecimal digits."""
    content = {"url": teacher.url, "model": teacher.model, "place": place, **asked}
    return sha256(_SORTED.encode(content).encode()).hexdigest()[:_NAME_CHARS]


class RequestLog:
    """The log of a folder, open in one process at a time."""

    def __init__(self, path: Path, file: BinaryIO, spending: Spending) -> None:
        """See `open_log`."""
        self._path, self._file = path, file
        self.spending = spending
        """What the requests of the log have taken."""
        self.num_probes = 0
        """Requests that belong to no recipe, see `PROBES`."""
        self.models: dict[str, str] = {}
        """Address → the model that was asked there last, before this process."""
        self._table = OffsetTable()
        self._end, self._unsynced = 0, False
        self._broken: OSError | None = None
        self._reader = path.open("rb")

    def __len__(self) -> int:
        """The number of requests."""
        return len(self._table)

    def find(self, name: str) -> Kept | None:
        """What is there of a request."""
        for offset in self._table.find(_hash(name)):
            self._reader.seek(offset)
            line = json.loads(self._reader.readline())
            if line["request"] == name:
                return _kept(line)
        return None

    def add(self, logged: Logged, outcome: ChatReply | NoReply) -> Kept:
        """Write a line. After this returns, a kill of the process does not lose it; a power cut may, for 0.2 seconds.

        Raises:
            UserError: it cannot be written.
        """
        name, teacher, date = logged.name, logged.teacher, time.strftime("%Y-%m-%d", time.gmtime())
        of = {"request": name, "for": logged.script, "date": date, "url": teacher.url, "model": teacher.model}
        if isinstance(outcome, NoReply):
            billed = {_BILLED: {count: getattr(outcome, count) for count in _COUNTS}} if outcome.is_billed else {}
            line = {**of, _FAILED: outcome.reason, **billed, "asked": logged.asked}
        else:
            line = {**of, "asked": logged.asked, "reply": outcome.as_json()}
        data = json.dumps(line).encode() + b"\n"
        with written_to(self._path):
            if self._broken is not None:
                raise self._broken
            self._write(data)
        self._table.add(_hash(name), self._end)
        self._count(logged.script, logged.asked, outcome)
        self._end, self._unsynced = self._end + len(data), True
        return Kept(name, outcome, date)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._end)  # half a line would spoil the next one
            raise

    def read(self) -> None:
        """Find what is there; text after the last whole line, which a kill left, is cut off.

        Raises:
            UserError: a line is damaged.
        """
        self._reader.seek(0)
        for number, line in enumerate(self._reader, 1):
            if not line.endswith(b"\n"):
                break
            try:
                content = json.loads(line)
                self._table.add(_hash(content["request"]), self._end)
                self.models[content["url"]] = content["model"]
                self._count(content["for"], content["asked"], _kept(content).outcome)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self._path}:{number} is damaged ({error!r}). Remove this line: its request is then paid again."
                ) from None
            self._end += len(line)
        self._file.truncate(self._end)

    def _count(self, script: str, asked: Mapping[str, Any], outcome: ChatReply | NoReply) -> None:
        self.num_probes += script.startswith(f"{PROBES}//")  # a task has a name, so no script of a recipe begins so
        self.spending.count(taken_tokens(asked, outcome))

    def sync(self) -> None:
        """Bring what was added to the disk."""
        if self._unsynced:
            self._unsynced = False
            os.fsync(self._file.fileno())

    def sync_until(self, ended: threading.Event) -> None:
        """Do that five times a second."""
        while not ended.wait(_SYNC_SECONDS):
            try:
                self.sync()
            except OSError as error:
                self._broken = error
                return

    def close(self) -> None:
        """Sync and close.

        Raises:
            UserError: the disk has not taken all of it.
        """
        try:
            with written_to(self._path):
                if self._broken is not None:  # the disk may say it only once
                    raise self._broken
                self.sync()
        finally:
            self._file.close()
            self._reader.close()


@contextmanager
def open_log(path: Path, spending: Spending) -> Iterator[RequestLog]:
    """The log in this file, which is made if it is missing; what it holds is counted in `spending`.

    Raises:
        UserError: a line is damaged, or it cannot be written.
    """
    with written_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file: Any = path.open("ab", buffering=0)
        log = RequestLog(path, file, spending)
    ended = threading.Event()
    syncing = threading.Thread(target=log.sync_until, args=(ended,), name="log", daemon=True)
    try:
        log.read()
        syncing.start()
        yield log
    finally:
        ended.set()
        if syncing.ident is not None:
            syncing.join()
        log.close()


def _kept(line: Mapping[str, Any]) -> Kept:
    reason = line.get(_FAILED)
    if reason is None:
        return Kept(line["request"], read_kept_reply(line["reply"]), line["date"])
    billed = line.get(_BILLED)
    outcome = NoReply(reason) if billed is None else NoReply(reason, True, *(billed[name] for name in _COUNTS))
    return Kept(line["request"], outcome, line["date"])


def _hash(name: str) -> int:
    return int(name[:16], 16)
