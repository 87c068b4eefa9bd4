"""What reviewers decide, a JSON line each, and the state that follows from the lines.

    decisions.jsonl:  {"name": "…", "record": "3f…", "verdict": "accept", "reviewer": "kim", "time": "…", …}

Any number of processes append at once, each under the file's lock; a line is on disk when `append` returns. The last
decision of each reviewer on each record counts; `undo` takes back the one that it names, and the one before counts
again. A `skip` says nothing, so what was said before goes on to count. An edit makes another record, since a record is
named by its content.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from sft.approval.record_set import identity
from sft.atomic_files import sync_folder
from sft.errors import UserError
from sft.json_lines import LineTail, append_line, from_json, is_json, read_object
from sft.printable import counted
from sft.schema import JsonObject

_MOST_LINES = 5
Verdict = Literal["accept", "edit", "reject", "skip", "flag", "undo"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True)
class Decision:
    """One reviewer on one record."""

    name: str
    """Its own: the same decision that is sent twice counts once."""
    record: str
    """The id of what the reviewer saw."""
    verdict: Verdict
    reviewer: str
    time: str
    """In UTC, as YYYY-MM-DDThh:mm:ssZ."""
    seconds: float = 0.0
    """How long the reviewer looked at it."""
    reason: str = ""
    edited: JsonObject | None = None
    """Of an edit: the fields of the record that takes the other's place."""
    undoes: str = ""
    """Of an undo: the name of the decision that it takes back, of the same reviewer on the same record; empty: the last
    one before it."""


class Word(NamedTuple):
    """A decision that counts, and its place among all lines."""

    place: int
    decision: Decision

    @property
    def weight(self) -> tuple[bool, int]:
        """Of a reviewer's words the heaviest counts: the last one, or the last before they skipped."""
        return self.decision.verdict != "skip", self.place


class DecisionFile:
    """The file of a set of records, which other processes append to as well."""

    def __init__(self, path: Path) -> None:
        """It need not be there yet."""
        self.path = path
        self._tail = LineTail(path)
        self._inode: int | None = None
        self._last_line = b""

    def append(self, decision: Decision) -> None:
        """Add a decision. When this returns, it is on disk.

        Raises:
            OSError: it is not; nothing of it counts.
        """
        with locked(self.path) as descriptor:
            append_line(self.path, asdict(decision), by_people=True)
            os.fsync(descriptor)
            if not self._tail.offset:
                sync_folder(self.path.parent)  # the file may be new

    def read_new(self) -> list[Decision]:
        """The decisions of all processes that were added since the last call. What is no decision is left out.

        A last line without a newline comes again once it has one.
        """
        lines = self._tail.read_new()
        self._last_line = lines[-1] if lines else self._last_line
        lines.append(self._tail.read_rest())
        return [found for line in lines if (found := read_decision(line)) is not None]

    def is_replaced(self) -> bool:
        """Whether another file has taken the place of the one that was read, such as by `git pull`.

        What was read counts no more then. The number of a file that is deleted may be given to the next one, and some
        programs write into the old one: so the line that was read last has to stand where it stood, too.
        """
        try:
            with self.path.open("rb") as file:
                inode, self._inode = self._inode, os.fstat(file.fileno()).st_ino
                file.seek(self._tail.offset - len(self._last_line))
                stands_there = file.read(len(self._last_line)) == self._last_line
        except FileNotFoundError:
            return self._tail.offset > 0
        return not stands_there or (inode not in (None, self._inode) and self._tail.offset > 0)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock of a file, which is made if it is not there; a process that ends lets go of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


class Decisions:
    """The state that follows from decisions, in the order of their lines."""

    def __init__(self, decisions: Sequence[Decision] = ()) -> None:
        self.names: set[str] = set()
        """Of all decisions, so that none is taken twice."""
        self._words: dict[str, dict[str, list[Word]]] = {}
        self._first: dict[str, dict[str, Verdict]] = {}
        self._made_by: dict[str, str] = {}
        self._made: dict[str, JsonObject] = {}
        self._num = 0
        for decision in decisions:
            self.add(decision)

    def add(self, decision: Decision) -> bool:
        """Take one; False if it was taken before."""
        if decision.name in self.names:
            return False
        self.names.add(decision.name)
        words = self._words.setdefault(decision.record, {}).setdefault(decision.reviewer, [])
        if decision.verdict != "undo":
            words.append(Word(self._num, decision))
            if decision.verdict != "skip":
                self._first.setdefault(decision.record, {}).setdefault(decision.reviewer, decision.verdict)
            if decision.edited is not None:
                made = self._made_by[decision.name] = identity(decision.edited)
                self._made[made] = decision.edited
        elif decision.undoes:
            words[:] = [word for word in words if word.decision.name != decision.undoes]
        elif words:
            words.pop()
        self._num += 1
        return True

    @property
    def records(self) -> set[str]:
        """The ids that somebody has said something about."""
        return {record for record, by in self._words.items() if any(by.values())}

    def words(self, record: str, reviewer: str) -> Sequence[Word]:
        """What a reviewer has said of this id and not taken back, in order."""
        return self._words.get(record, {}).get(reviewer, ())

    def last(self, record: str) -> dict[str, Word]:
        """Reviewer → the last decision on this id; `skip` only of those who have said nothing else."""
        by = self._words.get(record, {})
        return {who: max(words, key=attrgetter("weight")) for who, words in by.items() if words}

    def first(self, record: str) -> Mapping[str, Verdict]:
        """Reviewer → what they said of this id first but `skip`, also if they have taken it back; the first one first.

        Behind it they may have seen what others say.
        """
        return self._first.get(record, {})

    def flagged_by(self, record: str) -> set[str]:
        """Who has flagged this id, whatever they said later."""
        by = self._words.get(record, {})
        return {who for who, words in by.items() if any(word.decision.verdict == "flag" for word in words)}

    def made_by(self, decision: Decision) -> str | None:
        """The id of the record that an edit has made; None for other verdicts."""
        return self._made_by.get(decision.name)

    def versions(self, record: str) -> list[str]:
        """The ids of a record and of what edits have made of it; the last one is the one that counts.

        Of several edits of the same version the last counts.
        """
        ids, after = [record], -1
        while edits := [w for w in self.last(ids[-1]).values() if w.place > after and w.decision.verdict == "edit"]:
            last = max(edits)
            after = last.place
            ids.append(self._made_by[last.decision.name])
        return ids

    def edited_fields(self, record: str) -> JsonObject | None:
        """The fields of a record that an edit has made; None if none has."""
        return self._made.get(record)


def whole_decisions(path: Path, said: bytes) -> list[Decision]:
    """All decisions of the content of a file; an unfinished line of a killed process is none (see `is_unfinished`).

    Raises:
        UserError: a whole line is no decision, or has the name of another one: what it says, such as that a record is
            rejected, would not count.
    """
    lines = said.split(b"\n")
    if is_unfinished(said):
        lines.pop()
    found: dict[str, Decision] = {}
    bad = []
    for i, line in enumerate(lines, 1):
        decision = read_decision(line)
        if decision is None:
            bad += [i] if line.strip() else []
        elif _says(found.setdefault(decision.name, decision)) != _says(decision):
            bad.append(i)
    if bad:
        named = ", ".join(map(str, bad[:_MOST_LINES])) + (" and others" if len(bad) > _MOST_LINES else "")
        raise UserError(
            f"{path} holds {counted(len(bad), 'line')} that cannot be read as decisions: {named}. What they say would "
            "not count. Correct the lines (each needs a name of its own) or take them out, or use the version that "
            "wrote them."
        )
    return [*found.values()]


def is_unfinished(said: bytes) -> bool:
    """Whether the content of a file ends in a part of a line, as a killed process leaves it; it counts as nothing.

    A whole line without a newline, as editors may leave it, is none.
    """
    rest = said[said.rfind(b"\n") + 1 :]
    return bool(rest.strip()) and not is_json(rest)


def _says(decision: Decision) -> tuple[object, ...]:
    return decision.record, decision.verdict, decision.reviewer, decision.edited, decision.undoes


def read_decision(line: bytes) -> Decision | None:
    """The decision of a line; None for a line that is no decision, or one of a later version."""
    try:
        decision = from_json(Decision, read_object(line) or {})
    except TypeError:
        return None
    is_edit = isinstance(decision.edited, Mapping)
    texts = (decision.name, decision.record, decision.reviewer)
    is_whole = decision.verdict in VERDICTS and is_edit == (decision.verdict == "edit")
    is_whole = is_whole and isinstance(decision.undoes, str) and all(isinstance(text, str) and text for text in texts)
    return decision if is_whole else None
