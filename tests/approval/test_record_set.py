"""A record is named by what is trained of it, and read from the disk when it is shown."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.approval.record_set import find_place, identity, open_records
from sft.draft import Draft, Provenance
from sft.errors import RecordError, UserError
from sft.json_lines import json_line
from sft.review.session import ReviewSession, Setting
from sft.review.shown_record import edited, texts_of
from tests.review.served import record, write_records


def test_the_id_is_that_of_the_draft_and_a_written_one_does_not_count() -> None:
    turns = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    draft = Draft(turns, "t", Provenance("self_instruct", "m", "p"), evidence={"passage": "x"})
    content = json.loads(json.dumps(draft.as_json()))
    assert identity(content) == draft.id
    assert identity({**content, "id": "forged", "evidence": {"passage": "y"}, "approval": {"rule": "each"}}) == draft.id
    assert identity({**content, "task": "other"}) != draft.id
    assert draft.id == "152d5d5d26341372906893e1", "people's decisions name it"


def test_the_id_of_another_format_follows_every_field_but_what_stands_beside() -> None:
    fields = {"instruction": "q", "output": "a"}
    assert (
        identity(fields)
        == identity({**fields, "id": 3, "provenance": {}})
        == identity({"output": "a", "instruction": "q"})
    )
    assert identity(fields) != identity({**fields, "output": "b"})


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
PROVENANCES = [None, {"recipe": "r", "teacher": "t"}, {"scores": {"judge": 1}}, "a book"]
VALUES = st.sampled_from(["x", "y", 1, True, ["x"], {"x": 1}])
NAMES = st.sampled_from(["system", "prompt", "evidence", "topic", "task", "tools", "input", "provenance"])


@given(st.booleans(), st.sampled_from(PROVENANCES), st.dictionaries(NAMES, VALUES), NAMES, VALUES)
@settings(max_examples=300)
def test_the_id_follows_each_column_that_a_source_may_name_in_any_format(
    has_turns, provenance, more, name, value
) -> None:
    turns = {"messages": TURNS} if has_turns else {"instruction": "q", "output": "a"}
    fields = {**turns, "provenance": provenance, **more}
    changed = {**fields, name: value}
    is_made = isinstance(fields["provenance"], dict) and "teacher" in fields["provenance"]
    stands_beside = (name == "provenance" and not isinstance(value, str | list)) or (name == "evidence" and is_made)
    if fields.get(name) != value and not stands_beside:
        assert identity(changed) != identity(fields)


@given(st.dictionaries(st.sampled_from(["system", "evidence", "prompt", "n"]), st.sampled_from(["", "x", "a\nb"])))
@settings(max_examples=60)
def test_each_text_that_can_be_edited_is_a_part_of_the_id(more) -> None:
    thought = {"role": "assistant", "content": "a", "reasoning_content": "so"}
    for fields in ({"messages": [TURNS[0], thought], **more}, {"instruction": "q", "output": "a", **more}):
        for text in texts_of(fields):
            assert identity(edited(fields, {text.place: text.text + "!"})) != identity(fields), text.place


def test_an_edit_of_the_system_column_makes_another_record_which_is_what_is_trained(tmp_path: Path) -> None:
    rude = {"messages": TURNS, "task": "t", "system": "You are rude."}
    session = ReviewSession(find_place(write_records(tmp_path, [rude])), "kim", Setting())
    shown = session.next("w")["record"]["id"]
    session.decide({"name": "1", "record": shown, "verdict": "edit", "texts": {"system": "You are kind."}}, "w")
    (approved,) = session.approved()
    assert approved["system"] == "You are kind."
    assert session.progress()["total"]["edited"] == 1


def test_lines_are_found_again_equal_ones_once_and_those_that_are_no_record_counted(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    lines = [{"instruction": f"é{i % 3}", "output": "ü" * i} for i in (1, 2, 3, 2)]
    path.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\nno json\n[1]\n")
    records = open_records(path)
    assert (len(records), records.num_lines, records.num_unreadable) == (3, 6, 2)
    for entry, line in zip(records.entries, lines, strict=False):
        assert records.read(entry.id) == line
    assert find_place(path).decisions.name == "some.decisions.jsonl"


def test_doubt_and_rare_tasks_make_a_risk(tmp_path: Path) -> None:
    made = [record(f"q{i}", "a", "common", 1.0) for i in range(9)]
    made += [record("q", "a", "common", 0.25), record("r", "a", "rare", 1.0)]
    entries = open_records(write_records(tmp_path, made) / "records.jsonl").entries
    assert entries[0].risk == 0
    assert entries[-2].risk == 0.75
    assert 0 < entries[-1].risk < 0.5


@given(
    st.lists(
        st.tuples(
            st.text(), st.sampled_from(['], "task": "x', ', "scores": {"judge": 0}', "\\\\", '"', "a"]), st.text()
        ),
        min_size=1,
        max_size=5,
    ),
    st.dictionaries(st.sampled_from(["judge", "similarity", "x"]), st.floats(0, 1)),
    st.booleans(),
)
@settings(max_examples=40)
def test_a_glance_at_a_draft_sees_what_reading_it_does(texts, scores, with_evidence) -> None:
    evidence = {"passage": texts[0][0]} if with_evidence else {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        drafts = [
            Draft(
                ({"role": "user", "content": first + second}, {"role": "assistant", "content": second + third}),
                third or "t",
                Provenance("self_instruct", second, "p", {"note": first}, scores=scores),
                evidence=evidence,
            )
            for first, second, third in texts
        ]
        path.write_text("".join(json_line(draft.as_json()) for draft in drafts), encoding="utf-8")
        assert open_records(path, trust=True).entries == open_records(path).entries
        assert [entry.id for entry in open_records(path).entries] == [*dict.fromkeys(draft.id for draft in drafts)]


def test_a_line_that_somebody_changed_is_found_out(tmp_path: Path) -> None:
    turns = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    lines = [json_line(Draft(turns, f"t{i}", Provenance("self_instruct", "m", "p")).as_json()) for i in range(2)]
    (tmp_path / "records.jsonl").write_text(lines[0] + lines[1].replace('"q"', '"Q"'))
    place = find_place(tmp_path)
    quick, whole = open_records(place.records, trust=True), open_records(place.records)
    forged = (quick.entries[1], whole.entries[1])
    assert forged[0].id != forged[1].id
    assert quick.read(forged[0].id) is None
    session = ReviewSession(place, "kim", Setting(), trust=True)
    answer = session.decide({"name": "1", "record": forged[0].id, "verdict": "accept"}, "w")
    assert "not in the file any more" in answer["refused"]
    assert not place.decisions.read_bytes()
    session.check_ids()
    session.decide({"name": "2", "record": forged[1].id, "verdict": "accept"}, "w")
    assert session.progress()["total"]["accepted"] == 1


@pytest.mark.parametrize("content", [None, "", "no json\n"])
def test_what_holds_no_records_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "records.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"records\.jsonl"):
        open_records(find_place(tmp_path).records)


def test_an_edit_changes_the_texts_that_it_names_and_the_id() -> None:
    call = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": call}]
    fields = {
        "id": "old",
        "messages": [*turns, {"role": "tool", "content": "1"}, {"role": "assistant", "content": "a"}],
    }
    assert [(text.who, text.is_edited_here) for text in texts_of(fields)] == [
        ("user", True),
        ("assistant", True),
        ("assistant: tool_calls", False),
        ("tool", True),
        ("assistant", True),
    ]
    made = edited(fields, {"messages.3.content": "b"})
    assert made == {
        **fields,
        "id": identity(made),
        "messages": [*fields["messages"][:3], {**fields["messages"][3], "content": "b"}],
    }
    assert fields["messages"][3]["content"] == "a"
    for place in ("messages.1.tool_calls", "messages.4.content", "id", "x"):
        with pytest.raises(RecordError, match=place):
            edited(fields, {place: "b"})


def test_edits_of_other_formats_keep_every_other_field() -> None:
    shared = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "n": 1}
    assert edited(shared, {"conversations.1.value": "b"})["conversations"][1] == {"from": "gpt", "value": "b"}
    assert edited({"instruction": "q", "input": "", "output": "a"}, {"input": "x"}) == {
        "instruction": "q",
        "input": "x",
        "output": "a",
    }
