"""The mark of an approval holds for the content that it names, and for nothing else."""

import json
from typing import Any

import pytest

from sft.approval.mark import Approval, approval_of, content_id, marked, why_unapproved
from sft.draft import is_made
from tests.approval.reviewed import draft


def approved(**changes: Any) -> dict[str, Any]:
    """A record with a mark, with changes of the mark, as it is read from a file."""
    record = marked(draft(1), Approval(content_id(draft(1)), "each", ("kim",), "2026-11-28T12:00:00Z"))
    return json.loads(json.dumps({**record, "approval": {**record["approval"], **changes}}))


def test_a_mark_reads_back_and_holds() -> None:
    assert approval_of(approved()) == Approval(content_id(draft(1)), "each", ("kim",), "2026-11-28T12:00:00Z")
    assert approval_of({**approved(), "evidence": {"passage": "more"}}), "it is not trained"


@pytest.mark.parametrize("column", ["messages", "task", "tools", "system"])
def test_what_is_trained_cannot_be_changed_under_a_mark(column: str) -> None:
    changed = {**approved(), column: draft(2)["messages"] if column == "messages" else "other"}
    assert approval_of(changed) is None
    assert "was changed after" in why_unapproved(changed)


@pytest.mark.parametrize(
    "changes",
    [
        {"reviewers": []},
        {"reviewers": "kim"},
        {"reviewers": [5]},
        {"reviewers": None},
        {"rule": "none"},
        {"rule": ["each"]},
        {"time": 5},
        {"record": None},
        {"record": [1]},
    ],
)
def test_a_mark_that_is_none_approves_nothing(changes: dict[str, Any]) -> None:
    assert approval_of(approved(**changes)) is None


@pytest.mark.parametrize("mark", [True, "yes", [], {}, {"record": content_id(draft(1))}])
def test_anything_else_in_its_column_is_no_mark(mark: Any) -> None:
    assert approval_of({**draft(1), "approval": mark}) is None


def test_a_number_that_json_does_not_have_does_not_end_an_approval() -> None:
    record = {"instruction": "a", "output": "b", "score": float("nan")}
    written = json.dumps({**record, "score": None, "approval": {"record": content_id(record)}})
    assert content_id(json.loads(written)) == content_id(record)


@pytest.mark.parametrize(
    ("provenance", "made"),
    [
        (draft(1)["provenance"], True),
        ({"recipe": "r", "teacher": "t"}, True),
        ({"recipe": "", "teacher": "t"}, False),
        ({"source": "a book"}, False),
        ("self_instruct", False),
        (None, False),
    ],
)
def test_a_provenance_with_recipe_and_teacher_says_that_it_was_made(provenance: Any, made: bool) -> None:
    assert is_made({"prompt": "a", "provenance": provenance}) == made


def test_what_is_nested_too_deep_has_no_approval() -> None:
    nested: list[object] = []
    for _ in range(900):
        nested = [nested]
    assert approval_of({**approved(), "more": nested}) is None
