"""Finds records by words of their texts, by their task or by the beginning of their id."""

from collections.abc import Callable
from typing import Any

from sft.approval.record_set import RecordSet, read_lines
from sft.review.shown_record import texts_of

_MOST_FOUND = 50
_EXCERPT_CHARS = 160


def find_records(records: RecordSet, state_of: Callable[[str], str], words: str) -> list[dict[str, Any]]:
    """The first that hold these words, in any case: id, task, state (`state_of` its id) and an excerpt of each."""
    wanted = words.casefold()
    found: dict[str, dict[str, Any]] = {}
    at = {entry.offset: entry for entry in records.entries}
    for offset, fields in read_lines(records.path):
        if len(found) == _MOST_FOUND:
            break
        if fields is None:
            continue
        texts = "\n".join(text.text for text in texts_of(fields))
        hit = texts.casefold().find(wanted)
        entry = at.get(offset)
        if entry is not None and (hit >= 0 or wanted in entry.task.casefold() or entry.id.startswith(wanted)):
            start = max(0, hit - _EXCERPT_CHARS // 4)
            excerpt = texts[start : start + _EXCERPT_CHARS]
            found[entry.id] = {"id": entry.id, "task": entry.task, "state": state_of(entry.id), "excerpt": excerpt}
    return [*found.values()]
