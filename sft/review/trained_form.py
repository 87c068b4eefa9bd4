"""How training reads the records of the file that is reviewed: in which format, why not, and what their answer is.

The format is that of the config's source for this file. Without a config it is found from the first records.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

from sft.approval.record_set import find_place, read_lines
from sft.config import DataConfig, SourceConfig, TaskColumn
from sft.data.formats.columns import column_of
from sft.data.formats.detection import NUM_FIRST, add_columns
from sft.data.formats.formatting import expand_record, format_record, resolve_source
from sft.data.formats.sharegpt import CALL, ROLES
from sft.data.formats.turns import holds_turns
from sft.errors import RecordError, UserError
from sft.review.shown_record import Text, place_of, texts_of, turn_keys
from sft.schema import JsonObject, Record, RecordLocation

_ANSWERS: Mapping[str, str] = {"instruction": "output", "prompt_completion": "completion"}
"""Formats with one answer → its column, by the format's name."""


class TrainedForm:
    """The format of a file's records."""

    def __init__(self, path: Path, data: DataConfig | None = None) -> None:
        """Where there is no source and no format fits, nothing is checked.

        Args:
            path: the file of the records.
            data: of a config, whose source for this file counts.

        Raises:
            UserError: the file cannot be read, or does not have the columns of that source.
        """
        self.is_configured = False
        self._turns = data.turns if data else "strict"
        self._source: SourceConfig | None = None
        fields: dict[str, Any] = {}
        try:
            for _, one in islice(read_lines(path), NUM_FIRST):
                add_columns(fields, one or {})
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
        for given in data.sources if data else ():
            if _reads(given, path):
                self.is_configured = True
                self._source = resolve_source(given, _record(fields))
                return
        try:
            found = resolve_source(SourceConfig(name="review", path=str(path)), _record(fields))
        except UserError:
            return
        task = TaskColumn(column="task", default="no task")
        self._source = found.model_copy(update={"task": task})

    def as_records(self, fields: JsonObject) -> tuple[list[Record], SourceConfig] | None:
        """The examples of a record and their source, for the pipeline of training; None where no format fits.

        Raises:
            RecordError: its instances cannot be read.
        """
        return None if self._source is None else ([*expand_record(_record(fields), self._source)], self._source)

    def why_not(self, fields: JsonObject) -> str:
        """Why a record cannot be trained on; empty where it can."""
        try:
            if (found := self.as_records(fields)) is not None:
                for record in found[0]:
                    format_record(record, found[1], self._turns)
        except RecordError as error:
            return str(error)
        return ""

    def answer(self, fields: JsonObject) -> Text | None:
        """The last answer that is learned, where it is a text that may be edited."""
        place = self._answer_place(fields)
        return next((text for text in texts_of(fields) if text.is_edited_here and text.place == place), None)

    def _answer_place(self, fields: JsonObject) -> str | None:
        if self._source is None:
            return None
        form, columns = self._source.format, self._source.columns
        if form in _ANSWERS:
            column = column_of(columns, _ANSWERS[form])
            return None if holds_turns(fields.get(column)) else place_of(column)
        if form not in ("messages", "sharegpt"):
            return None
        column = column_of(columns, "messages" if form == "messages" else "conversations")
        turns = fields.get(column)
        for i, turn in reversed([*enumerate(turns)] if isinstance(turns, list) else []):
            speaker, said = turn_keys(turn)
            who = turn.get(speaker) if isinstance(turn, Mapping) else None
            if isinstance(who, str) and ROLES.get(who) == "assistant" and who != CALL:
                return place_of(column, i, said)
        return None


def _reads(source: SourceConfig, path: Path) -> bool:
    """Whether the source of a config, whose path is absolute, reads this file."""
    given, here = Path(source.path), path.resolve()
    if source.constructed:
        try:
            return find_place(given).records.resolve() == here
        except UserError:
            return False
    return given.resolve() in (here, here.parent) or fnmatch(str(path.absolute()), source.path)


def _record(fields: JsonObject) -> Record:
    return Record("review", 0, RecordLocation("records", 1), fields)
