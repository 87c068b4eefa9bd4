"""One reviewer at work on one set of records: what the page asks for, and what it is told. It knows nothing of HTTP.

All processes that review the same set see each other's decisions: each call first reads the lines that were added.
Where another file has taken the place of the records, such as that of a second `sft construct`, it is read first. What
was decided holds for the records that are still in it, by their content.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from sft.approval.approved import approvals, records_to_train
from sft.approval.decisions import Decision, DecisionFile, locked
from sft.approval.opinions import Opinions, State
from sft.approval.record_order import by_risk, by_sample, is_for_two, next_entry
from sft.approval.record_set import Entry, Place, RecordSet, open_records
from sft.approval.rule import reviewer_agreement, sample_result
from sft.atomic_files import fingerprint
from sft.errors import UserError
from sft.paused_collector import paused_collector
from sft.printable import counted
from sft.review.given_decision import read_given
from sft.review.given_out import GivenOut
from sft.review.refusals import Gone, NotNow, Refused, reason_of
from sft.review.search import find_records
from sft.review.shown_record import about, texts_of
from sft.review.trained_form import TrainedForm
from sft.schema import JsonObject

_MOST_WINDOW_CHARS = 100
_MOST_TASKS = 500

View = Callable[[JsonObject, TrainedForm], list[tuple[bool, str]]] | None


class Setting(NamedTuple):
    """How a set is reviewed."""

    seed: int = 0
    bound: float | None = None
    """Of the error rate of a random sample; None: each record is reviewed."""
    share_for_two: float = 0.0
    """The share of the records that two reviewers decide on."""


class ReviewSession:
    """Answers for the page; calls from several threads take turns."""

    def __init__(
        self,
        place: Place,
        reviewer: str,
        setting: Setting,
        view: View = None,
        *,
        form: TrainedForm | None = None,
        trust: bool = False,
    ) -> None:
        """Read the records and the decisions.

        Args:
            place: where both lie.
            reviewer: who decides here.
            setting: how the set is reviewed.
            view: a record's fields and the form of its file → the text that training sees, in parts.
            form: how training reads the records; None: as the records show it.
            trust: begin at once with the ids as they are written; `check_ids` looks whether they are right.

        Raises:
            UserError: they cannot be read.
        """
        self.reviewer = reviewer
        self._setting = setting
        self.place = place
        self._view = view
        self._given_out = GivenOut(place.decisions)
        self.form = form or TrainedForm(place.records)
        self._name = fingerprint(str(place.decisions.absolute()))
        self._lock = Lock()
        self._change = ""
        self._stamp = _stamp(place.records)
        with paused_collector():  # entries stay as long as modules do
            self._begin(open_records(place.records, trust=trust))

    @property
    def records(self) -> RecordSet:
        """What is reviewed."""
        return self._records

    def check_ids(self) -> None:
        """Read every record, and begin anew if one has another id than is written: somebody has changed it.

        Raises:
            UserError: the file cannot be read any more.
        """
        with self._lock:
            stamp = self._stamp
        records = open_records(self.place.records)
        with self._lock:
            # Of another file that came meanwhile, the ids are looked at when it is opened.
            is_same_file = self._stamp == stamp == _stamp(self.place.records)
            if is_same_file and records.entries != self._records.entries:
                self._begin(records)

    def _begin(self, records: RecordSet) -> None:
        self._records = records
        self._file = DecisionFile(self.place.decisions)
        self._opinions = Opinions(records)
        is_sample = self._setting.bound is not None
        self._order = by_sample(records.entries, self._setting.seed) if is_sample else by_risk(records.entries)
        self._ids = [entry.id for entry in self._order]
        sizes = Counter(map(attrgetter("task"), self._order))
        self._counts: Counter[tuple[str, State]] = Counter({(task, "open"): num for task, num in sizes.items()})
        try:
            self._read_new()
        except OSError as error:
            raise UserError(f"{self.place.decisions} cannot be read: {error.strerror or error}.") from error

    def check_is_writable(self) -> None:
        """Look whether decisions can be kept.

        Raises:
            UserError: they cannot.
        """
        try:
            with locked(self._file.path):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{self._file.path} cannot be written: {reason}. Decisions are kept there.") from error

    def progress(self, window: str = "") -> dict[str, Any]:
        """How far all reviewers are; the window stays the holder of its record."""
        with self._lock:
            self._read_new()
            if window:
                self._given_out.renew(self._holder(window))
            is_measured = self._setting.share_for_two > 0
            pairs = reviewer_agreement(self._opinions.decisions, self._needs_two if is_measured else None)
            return {**self._progress(), "agreement": [str(pair) for pair in pairs]}

    def next(self, window: str) -> dict[str, Any]:
        """The record that this window shows next, and the progress."""
        with self._lock:
            self._read_new()
            return self._next(window)

    def leave(self, window: str) -> None:
        """The window is closed: others may have its record."""
        self._given_out.give(self._holder(window), lambda taken: None)

    def show(self, record: str, window: str) -> dict[str, Any]:
        """A certain record, which the window now has open.

        Raises:
            Refused: it is not here any more.
        """
        with self._lock:
            self._read_new()
            return self._open(record, window)

    def decide(self, given: Mapping[str, Any], window: str) -> dict[str, Any]:
        """Take a decision; when this returns, it is on disk. The record to show comes with the answer.

        That is the next one, after `undo` the same. If it cannot be shown, `unshown` says why: the decision is on disk
        even so. If the record is not in the file any more, nothing is taken, and `refused` says so.

        Args:
            given: see `read_given`.
            window: where it was made.

        Raises:
            Refused: it is no decision on a record that is here.
            OSError: it could not be written.
        """
        with self._lock:
            try:
                self._take(given, self.reviewer)
            except Gone as gone:
                return {**self._next(window), "refused": str(gone)}
            try:
                self._read_new()
                is_undone = given.get("verdict") == "undo"
                return self._open(str(given.get("record")), window) if is_undone else self._next(window)
            except Exception as error:  # whatever it is, the decision is on disk
                return {"unshown": reason_of(error)}

    def take(self, given: Mapping[str, Any], reviewer: str) -> bool:
        """Take a decision of any reviewer; False if it was taken before. Arguments and errors are those of `decide`."""
        with self._lock:
            return self._take(given, reviewer)

    def words(self, record: str, reviewer: str) -> list[Decision]:
        """What a reviewer has said of this very version and not taken back, in order."""
        with self._lock:
            self._read_new()
            return [word.decision for word in self._opinions.decisions.words(record, reviewer)]

    def fields(self, record: str) -> JsonObject | None:
        """A record of the file, or one that an edit has made; None if it is not here."""
        with self._lock:
            self._read_new()
            return self._fields(record)

    def approved(self) -> Iterator[JsonObject]:
        """The records that may be trained, after their edits and with their marks, by the rule of the setting."""
        with self._lock:
            self._read_new()
            found = approvals(self._ids, self._opinions, self._setting.bound)
        yield from records_to_train(self._records.path, self._opinions, found, Counter())

    def versions(self) -> Iterator[tuple[str, str, JsonObject]]:
        """The id, task and fields of each record as it is now, after its edits, in the order of the file."""
        for entry in self._records.entries:
            version = self._opinions.of(entry.id).id
            if (fields := self._fields(version)) is not None:
                yield version, entry.task, fields

    def search(self, words: str) -> list[dict[str, Any]]:
        """The first records that hold these words in their texts, their task or their id."""
        return find_records(self._records, self._state, words)

    def _take(self, given: Mapping[str, Any], reviewer: str) -> bool:
        self._read_new()
        if str(given.get("name", "")) in self._opinions.decisions.names:
            return False
        self._file.append(read_given(given, reviewer, self._opinions, self._fields, self.form))
        return True

    def _open(self, record: str, window: str) -> dict[str, Any]:
        origin = min(self._opinions.origins(record), default=None)
        if origin is None:
            raise Refused(f"there is no record {record}")
        self._given_out.give(self._holder(window), lambda taken: origin)
        return {"record": self._shown(self._records.entry(origin)), "progress": self._progress()}

    def _next(self, window: str) -> dict[str, Any]:
        chosen: Entry | None = None

        def choose(taken: Container[str]) -> str | None:
            nonlocal chosen
            chosen = next_entry(self._order, self._opinions.of, self.reviewer, taken, self._needs_two)
            return chosen and chosen.id

        self._given_out.give(self._holder(window), choose)
        return {"record": chosen and self._shown(chosen), "progress": self._progress()}

    def _holder(self, window: str) -> str:
        return f"{self.reviewer} {window[:_MOST_WINDOW_CHARS]}"

    def _needs_two(self, record: str) -> bool:
        is_drawn = is_for_two(record, self._setting.share_for_two, self._setting.seed)
        return is_drawn and record in self._records

    def _is_blind(self, record: str) -> bool:
        """Whether this reviewer is to decide on the record as the second one, without what the first says."""
        opinion = self._opinions.of(record)
        is_first = self.reviewer in opinion.decided_by or len(opinion.decided_by) != 1
        return bool(self.reviewer) and not is_first and opinion.state != "flagged" and self._needs_two(record)

    def _state(self, record: str) -> State:
        """As this reviewer may see it."""
        return "open" if self._is_blind(record) else self._opinions.of(record).state

    def _shown(self, entry: Entry) -> dict[str, Any]:
        """The version that counts; of a record for two that this reviewer has not decided on, what the other saw."""
        opinion = self._opinions.of(entry.id)
        is_blind = self._is_blind(entry.id)
        version = entry.id if is_blind else opinion.id
        fields = self._fields(version)
        shown: dict[str, Any] = {"id": version, "task": entry.task, "risk": round(entry.risk, 2)}
        if fields is None:
            return {**shown, "gone": True}
        return {
            **shown,
            "texts": [text._asdict() for text in texts_of(fields)],
            "about": about(fields),
            "rendered": self._view(fields, self.form) if self._view else None,
            "note": self.form.why_not(fields),
            "state": self._state(entry.id),
            "said": [] if is_blind else self._said(entry.id),
        }

    def _said(self, record: str) -> list[dict[str, str]]:
        """What the reviewers said of any version, the last words first."""
        decisions = self._opinions.decisions
        words = [word for version in decisions.versions(record) for word in decisions.last(version).values()]
        return [
            {name: getattr(one, name) for name in ("name", "record", "reviewer", "verdict", "reason", "time")}
            for _, one in sorted(words, key=lambda word: -word.place)
        ]

    def _fields(self, record: str) -> JsonObject | None:
        made = self._opinions.decisions.edited_fields(record)
        return self._records.read(record) if record in self._records else made

    def _read_new(self) -> None:
        if self._stamp != (stamp := _stamp(self.place.records)):
            self._begin_anew(stamp)
            return
        if self._file.is_replaced():
            self._begin(self._records)
            self._change = f"{self.place.decisions.name} was replaced by another file, and is read anew."
            return
        for decision in self._file.read_new():
            origins = self._opinions.origins(decision.record)
            before = {record: self._state(record) for record in origins}
            for record in self._opinions.add(decision):
                task = self._records.entry(record).task
                self._counts[task, before[record]] -= 1
                self._counts[task, self._state(record)] += 1

    def _begin_anew(self, stamp: tuple[int, ...]) -> None:
        """Another file of records is there."""
        before = self._records
        try:
            records = open_records(self.place.records)
        except UserError as error:
            raise NotNow(str(error)) from None
        num_gone = sum(entry.id not in records for entry in before.entries)
        num_new = len(records) + num_gone - len(before)
        self._stamp = stamp
        self._begin(records)
        self._change = f"The file was written anew: {counted(num_new, 'record')} more, {num_gone:,} not there any more."

    def _notes(self) -> str:
        num = self._records.num_unreadable
        unreadable = f"{counted(num, 'line')} cannot be read, and will not be trained." if num else ""
        return f"{unreadable} {self._change}".strip()

    def _progress(self) -> dict[str, Any]:
        tasks: dict[str, dict[State, int]] = {}
        for (task, state), num in sorted(self._counts.items()):
            tasks.setdefault(task, {})[state] = num
        total = Counter({state: 0 for state in ("open", "accepted", "edited", "rejected", "flagged")})
        for counts in tasks.values():
            total.update(counts)
        return {
            "reviewer": self.reviewer,
            "data": self._records.path.name,
            "set": self._name,
            "num": len(self._records),
            "total": total,
            "tasks": [{"task": task, **counts} for task, counts in [*tasks.items()][:_MOST_TASKS]],
            "sample": self._sample(),
            "change": self._notes(),
        }

    def _sample(self) -> str | None:
        bound = self._setting.bound
        return None if bound is None else str(sample_result(self._ids, self._opinions.of, bound))


def _stamp(path: Path) -> tuple[int, ...]:
    """Another one for another file; none for none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
