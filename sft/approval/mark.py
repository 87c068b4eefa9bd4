"""The mark of an approved record: who approved what, by which rule; and whether a record needs one.

    {"messages": […], "provenance": {…}, "approval": {"record": "3f…", "rule": "each", "reviewers": ["kim"], …}}

It names the content that was approved. Whoever changes the record later has a mark that holds no more.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sft.approval.record_set import identity
from sft.json_lines import from_json, without_nan
from sft.nesting import is_deep
from sft.schema import JsonObject

COLUMN = "approval"


@dataclass(frozen=True, slots=True)
class Approval:
    """On what it rests that a record may be trained."""

    record: str
    """The id of the content that is approved."""
    rule: Literal["each", "sample"]
    """Whether people have accepted this very record, or a sample stands for it."""
    reviewers: tuple[str, ...]
    """Who accepted the record, or who reviewed the sample."""
    time: str
    """Of the last decision of these."""
    bound: float | None = None
    """Of a sample: the error rate that it had to lie below."""
    num_reviewed: int | None = None
    """Of a sample: its size."""
    num_wrong: int | None = None
    """Of a sample: how many of it were edited or rejected."""


def marked(fields: JsonObject, approval: Approval | None) -> JsonObject:
    """The record with this mark in the place of any other; without one for None."""
    bare = {name: value for name, value in fields.items() if name != COLUMN}
    if approval is None:
        return bare
    return {**bare, COLUMN: {name: value for name, value in asdict(approval).items() if value is not None}}


def approval_of(fields: JsonObject) -> Approval | None:
    """The mark of a record; None where it has none, or it is of another content."""
    given: Any = fields.get(COLUMN)
    if not isinstance(given, Mapping) or not isinstance(given.get("reviewers"), list):
        return None
    try:
        approval = from_json(Approval, {**given, "reviewers": tuple(given["reviewers"])})
    except TypeError:
        return None
    texts = (approval.rule, approval.time, *approval.reviewers)
    is_whole = all(isinstance(text, str) for text in texts) and approval.rule in ("each", "sample")
    is_whole = is_whole and bool(approval.reviewers) and not is_deep(fields)  # nobody approves what is deep
    return approval if is_whole and approval.record == content_id(fields) else None


def content_id(fields: JsonObject) -> str:
    """The id of a record as it is once it is written and read again."""
    return identity(without_nan(fields))


def why_unapproved(fields: JsonObject) -> str:
    """Why a record without an approval that holds has none."""
    if fields.get(COLUMN):
        return "its approval is of another content: it was changed after people had approved it"
    return "nobody has approved it"
