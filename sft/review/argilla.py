"""Records as those of Argilla, and what people said there. docs/REVIEW.md has its settings."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from sft.review.answered import PARTS, Answered, list_or_empty, said_of, text_or_none, value_at, when_said
from sft.review.shown_record import Text
from sft.schema import JsonObject

_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}
_MOST_ROLE_CHARS, _MOST_CONTENT_CHARS, _MOST_FENCE_CHARS = 20, 16_000, 1_000
"""A server of Argilla takes roles of 20 and messages of 20,000 characters; of a file with others it takes nothing."""


def write_argilla(record: str, task: str, texts: list[Text], answer: str) -> dict[str, Any]:
    """The record that shows this one; `answer` is what may be edited."""
    chat = [message for text in texts for message in _messages(text)]
    suggestions = {"answer": {"value": answer, "score": None, "agent": None}} if answer else {}
    return {
        "id": record,
        "fields": {"chat": chat},
        "metadata": {"task": task},
        "suggestions": suggestions,
        "responses": {},
    }


def _messages(text: Text) -> Iterator[dict[str, str]]:
    """A text as messages that Argilla takes (none is empty, and a long one is cut), shown letter by letter, as code.

    As Markdown it would lose its tags, references and white space, and its images would be fetched.
    """
    role = _ROLES.get(text.who, text.who).rpartition(": ")[2][:_MOST_ROLE_CHARS] or "?"
    fence = "`" * min(_MOST_FENCE_CHARS, max(3, 1 + max(map(len, re.findall("`+", text.text)), default=0)))
    for begin in range(0, max(1, len(text.text)), _MOST_CONTENT_CHARS):
        yield {"role": role, "content": f"{fence}\n{text.text[begin : begin + _MOST_CONTENT_CHARS]}\n{fence}"}


def read_argilla(content: JsonObject) -> Iterator[Answered]:
    """What `to_list(flatten=True)` writes, or `to_json`, which has lost what is submitted.

    A record is completed once a response to it is submitted: that of the one person who has responded.
    """
    shown = text_or_none(value_at(content, "suggestions", "answer", "value") or content.get("answer.suggestion"))
    by_user: defaultdict[str, list[tuple[str, Any]]] = defaultdict(list)
    statuses: defaultdict[str, set[Any]] = defaultdict(set)
    for question, value, user, status in _responses(content):
        if question in PARTS and value is not None:
            by_user[str(user)].append((question, value))
            statuses[str(user)].add(status)
    is_completed = content.get("status") == "completed" and len(by_user) == 1
    for user, values in by_user.items():
        is_withdrawn = bool(statuses[user] & {"draft", "discarded"})
        said, unclear = said_of([("verdict", "skip")] if is_withdrawn else values)
        if not (is_withdrawn or statuses[user] == {"submitted"} or (statuses[user] == {None} and is_completed)):
            unclear = "the file does not say whether it was submitted: export it by to_list(flatten=True)"
        yield Answered(
            record=str(content.get("id")),
            reviewer=f"argilla-{user}",
            verdict=said.get("verdict", ""),
            reason=said.get("reason", ""),
            answer=said.get("answer"),
            given_out=shown,
            when=when_said(content, "updated_at", "inserted_at"),
            unclear=unclear,
        )


def _responses(content: JsonObject) -> Iterator[tuple[str, Any, Any, Any]]:
    """Question, value, user and status of each response: one by one, or each of them in a list of its own."""
    nested = content.get("responses")
    for question, answers in nested.items() if isinstance(nested, Mapping) else ():
        for answer in list_or_empty(answers):
            yield question, value_at(answer, "value"), value_at(answer, "user_id"), value_at(answer, "status")
    for question in PARTS:
        name = f"{question}.responses"
        lists = [list_or_empty(content.get(one)) for one in (name, f"{name}.users", f"{name}.status")]
        yield from ((question, value, user, status) for value, user, status in zip_longest(*lists))
