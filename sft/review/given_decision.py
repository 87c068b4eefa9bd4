"""The decision that the page or another tool gives, or why it is none."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from sft.approval.decisions import VERDICTS, Decision, Verdict
from sft.approval.opinions import Opinions
from sft.errors import RecordError
from sft.review.refusals import Gone, Refused
from sft.review.shown_record import edited, texts_of
from sft.review.trained_form import TrainedForm
from sft.schema import JsonObject

_MOST_NAME_CHARS = 100
_MOST_REASON_CHARS = 4000
_MOST_SECONDS = 24 * 3600.0


def read_given(
    given: Mapping[str, Any],
    reviewer: str,
    opinions: Opinions,
    fields_of: Callable[[str], JsonObject | None],
    form: TrainedForm,
) -> Decision:
    """The decision.

    Args:
        given: name, record, verdict, seconds, reason, of an edit `texts`: place → text, and of an undo `undoes`.
        reviewer: who decides.
        opinions: what was said until now.
        fields_of: the fields of a record or of what an edit has made; None for one that is not there any more.
        form: how training reads the records.

    Raises:
        Refused: it is no decision on a record that is here.
    """
    name, record, verdict = (given.get(key) for key in ("name", "record", "verdict"))
    if not isinstance(name, str) or not 0 < len(name) <= _MOST_NAME_CHARS or verdict not in VERDICTS:
        raise Refused("this is no decision")
    if not isinstance(record, str):
        raise Refused("there is no such record")
    if not opinions.origins(record):
        raise Gone("this record is not in the file")
    undoes = _undone(given.get("undoes"), record, reviewer, opinions) if verdict == "undo" else ""
    made: JsonObject | None = None
    chosen: Verdict = verdict
    if verdict in ("accept", "edit"):
        fields = fields_of(record)
        if fields is None:
            raise Gone("this record is not in the file any more: another one stands in its place")
        made = _edited(fields, given.get("texts"), form) if verdict == "edit" else None
        chosen = "accept" if made is None else "edit"
    seconds, reason = given.get("seconds"), given.get("reason")
    return Decision(
        name=name,
        record=record,
        verdict=chosen,
        reviewer=reviewer,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(min(_MOST_SECONDS, max(0.0, seconds)), 1) if isinstance(seconds, int | float) else 0.0,
        reason=reason[:_MOST_REASON_CHARS] if isinstance(reason, str) else "",
        edited=made,
        undoes=undoes,
    )


def _undone(name: Any, record: str, reviewer: str, opinions: Opinions) -> str:
    """The name of the decision that an undo takes back: nothing but a skip may have come behind it.

    A window knows what was said in it. The last word may be one of another window, which nobody sees here.
    """
    decisions = opinions.decisions
    word = next((word for word in decisions.words(record, reviewer) if word.decision.name == name), None)
    if word is None:
        raise Refused(f"{reviewer} has said nothing of this version of the record that could be undone")
    versions = {record, *(version for origin in opinions.origins(record) for version in decisions.versions(origin))}
    words = [word for version in versions for word in decisions.words(version, reviewer)]
    later = max((one for one in words if one.place > word.place and one.decision.verdict != "skip"), default=None)
    if later is not None:
        said = f"{later.decision.verdict}, {later.decision.time}"
        raise Refused(f"{reviewer} has said something else of this record since ({said}), such as in another window")
    return word.decision.name


def _edited(fields: JsonObject, texts: Any, form: TrainedForm) -> JsonObject | None:
    """The record with other texts; None if they are the same."""
    if not isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts.values()):
        raise Refused("an edit needs texts")
    before = {text.place: text.text for text in texts_of(fields)}
    changed = {place: text for place, text in texts.items() if before.get(place) != text}
    if not changed:
        return None
    try:
        made = edited(fields, changed)
    except RecordError as error:
        raise Refused(str(error)) from None
    if reason := form.why_not(made):
        raise Refused(f"this could not be trained on: {reason}")
    return made
