"""An edit of a text changes this text of the record, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.errors import RecordError
from sft.review.shown_record import edited, texts_of

KEYS = st.text("a.~01", max_size=4) | st.sampled_from(["content", "messages", "messages.0", "messages.0.content"])
TURNS = st.lists(st.dictionaries(KEYS | st.just("role"), st.text("ab", max_size=2)) | st.just("no turn"), max_size=3)
FIELDS = st.dictionaries(KEYS, st.text("ab", max_size=2) | TURNS, max_size=5)


@given(FIELDS)
def test_an_edit_changes_the_text_at_its_place_and_nothing_else(fields: dict[str, Any]) -> None:
    before = texts_of(fields)
    assert len({text.place for text in before}) == len(before)
    for text in before:
        if text.is_edited_here:
            changed = [one._replace(text="new") if one.place == text.place else one for one in before]
            after = texts_of(edited(fields, {text.place: "new"}))
            assert [one for one in after if one.text] == [one for one in changed if one.text]


def test_a_key_with_a_point_is_edited_by_itself() -> None:
    turn = {"role": "user", "content": "q", "meta.lang": "en", "meta": "m"}
    fields = {"messages": [turn], "messages.0.content": "x"}
    assert edited(fields, {"messages.0.meta~1lang": "de"}) == {**fields, "messages": [{**turn, "meta.lang": "de"}]}
    assert edited(fields, {"messages~10~1content": "de"}) == {**fields, "messages.0.content": "de"}
    with pytest.raises(RecordError, match="no text"):
        edited(fields, {"messages.0.meta.lang": "de"})
