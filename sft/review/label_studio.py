"""Records as tasks of Label Studio, and its export, `JSON`, as what people said. docs/REVIEW.md has the interface."""

from collections.abc import Iterator
from typing import Any

from sft.review.answered import PARTS, Answered, list_or_empty, said_of, text_or_none, value_at, when_said
from sft.review.shown_record import Text
from sft.schema import JsonObject


def write_label_studio(record: str, task: str, texts: list[Text], answer: str) -> dict[str, Any]:
    """The task that shows this record; `answer` is what may be edited."""
    dialogue = [{"author": text.who, "text": text.text} for text in texts]
    return {"data": {"record": record, "task": task, "dialogue": dialogue, "answer": answer}}


def read_label_studio(content: JsonObject) -> Iterator[Answered]:
    """What each annotation of a task says; one that is cancelled is a skip."""
    shown = text_or_none(value_at(content, "data", "answer"))
    for annotation in list_or_empty(content.get("annotations")):
        is_cancelled = value_at(annotation, "was_cancelled") is True
        values: list[tuple[str, Any]] = [("verdict", "skip")] if is_cancelled else []
        for result in () if is_cancelled else list_or_empty(value_at(annotation, "result")):
            name, kind = str(value_at(result, "from_name")), value_at(result, "type")
            if name in PARTS:
                chosen, written = value_at(result, "value", "choices"), value_at(result, "value", "text")
                values.append((name, written if chosen is None else chosen))
            elif kind == "textarea":  # it may be the answer
                values.append((name, None))
        said, unclear = said_of(values)
        by, seconds = value_at(annotation, "completed_by"), value_at(annotation, "lead_time")
        yield Answered(
            record=str(value_at(content, "data", "record")),
            reviewer=str(value_at(by, "email") or f"label-studio-{value_at(by, 'id') or by}"),
            verdict=said.get("verdict", ""),
            reason=said.get("reason", ""),
            answer=said.get("answer"),
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
            given_out=shown,
            when=when_said(annotation, "updated_at", "created_at"),
            unclear=unclear,
        )
