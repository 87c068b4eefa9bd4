"""What a reviewer says in one window holds in the others, and in another process, too."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sft.approval.decisions import read_decision
from sft.approval.gate import pass_gate
from sft.approval.record_set import find_place
from sft.config import DataConfig
from sft.review.refusals import Refused
from sft.review.session import ReviewSession, Setting
from tests.review.served import read_decisions, record, write_records


def opened(folder: Path, reviewer: str = "kim", num: int = 3, setting: Setting | None = None) -> ReviewSession:
    if not (folder / "records.jsonl").is_file():
        write_records(folder, [record(f"question {i}", "answer") for i in range(num)])
    return ReviewSession(find_place(folder), reviewer, setting or Setting())


def states(session: ReviewSession) -> dict[str, int]:
    return {state: num for state, num in session.progress()["total"].items() if num}


def say(session: ReviewSession, name: str, record: str, verdict: str, window: str = "w", **more: Any) -> Any:
    return session.decide({"name": name, "record": record, "verdict": verdict, **more}, window)


@pytest.mark.parametrize("is_another_process", [False, True])
def test_an_undo_takes_back_what_was_said_in_its_window_or_nothing(tmp_path: Path, is_another_process: bool) -> None:
    here = opened(tmp_path)
    there = opened(tmp_path) if is_another_process else here
    first = here.records.entries[0].id
    say(here, "1", first, "accept", "here")
    say(there, "2", first, "reject", "there", reason="wrong")
    with pytest.raises(Refused, match=r"kim has said something else of this record since \(reject, .*another window"):
        say(here, "3", first, "undo", "here", undoes="1")
    with pytest.raises(Refused, match="kim has said nothing"):
        say(here, "3", first, "undo", "here")
    assert states(here) == {"open": 2, "rejected": 1}
    say(there, "4", first, "undo", "there", undoes="2")
    assert states(here) == {"open": 2, "accepted": 1}
    with pytest.raises(Refused, match="kim has said nothing"):
        say(there, "5", first, "undo", "there", undoes="2")
    say(there, "6", first, "skip", "there")
    say(here, "7", first, "undo", "here", undoes="1")
    assert states(here) == {"open": 3}, "a skip says nothing"
    assert [one["undoes"] for one in read_decisions(tmp_path) if one["verdict"] == "undo"] == ["2", "1"]


def test_an_edit_is_not_undone_where_what_it_made_was_rejected_in_another_window(tmp_path: Path) -> None:
    session = opened(tmp_path)
    first = session.records.entries[0].id
    say(session, "1", first, "edit", texts={"messages.1.content": "better"})
    made = session.show(first, "v")["record"]["id"]
    say(session, "2", made, "reject", "v")
    with pytest.raises(Refused, match="something else"):
        say(session, "3", first, "undo", undoes="1")
    assert states(session) == {"open": 2, "rejected": 1}


def replaced(path: Path, lines: list[str]) -> None:
    (path.parent / "new").write_text("".join(lines))
    (path.parent / "new").replace(path)


def written_over(path: Path, lines: list[str]) -> None:
    path.write_text("".join(lines))


def deleted_and_written(path: Path, lines: list[str]) -> None:
    path.unlink()
    written_over(path, lines)


@pytest.mark.parametrize("put", [replaced, written_over, deleted_and_written])
@pytest.mark.parametrize("num", [0, 1, 3, 8])
def test_decisions_that_take_the_place_of_others_under_an_open_page_count(
    tmp_path: Path, put: Callable[[Path, list[str]], None], num: int
) -> None:
    session = opened(tmp_path, num=9)
    ids = [entry.id for entry in session.records.entries]
    for i in range(3):
        say(session, f"n{i}", ids[i], "accept")
    path = tmp_path / "decisions.jsonl"
    one = json.loads(path.read_text().splitlines()[0])
    put(
        path,
        [json.dumps({**one, "name": f"lee{i}", "record": ids[-1 - i], "verdict": "reject"}) + "\n" for i in range(num)],
    )
    assert states(session) == states(opened(tmp_path)) == {"open": 9 - num} | ({"rejected": num} if num else {})
    assert "decisions.jsonl was replaced by another file" in session.progress()["change"]
    say(session, "last", ids[0], "accept")
    assert states(session) == states(opened(tmp_path))
    os.unlink(path)
    assert states(session) == {"open": 9}


def test_who_decides_second_sees_nothing_of_the_first_and_the_first_words_of_both_are_compared(tmp_path: Path) -> None:
    setting = Setting(share_for_two=1.0)
    kim, lee, max_ = (opened(tmp_path, name, 20, setting) for name in ("kim", "lee", "max"))
    ids = [entry.id for entry in kim.records.entries]
    for i, one in enumerate(ids):
        if i % 4 == 3:
            say(kim, f"k{i}", one, "edit", texts={"messages.1.content": "better"})
        else:
            say(kim, f"k{i}", one, "accept" if i % 2 else "reject")
    for blind in (lee, max_):
        assert {found["state"] for found in blind.search("question")} == {"open"}
        assert states(blind) == {"open": 20}
        assert {row["open"] for row in blind.progress()["tasks"]} == {20}
        shown = [blind.show(one, "l")["record"] for one in ids]
        assert [(one["id"], one["state"], one["said"]) for one in shown] == [(one, "open", []) for one in ids]
    assert states(kim) == states(opened(tmp_path, "", 20, setting)) == {"accepted": 5, "edited": 5, "rejected": 10}
    for i, one in enumerate(ids):
        say(lee, f"l{i}", one, "accept" if i % 3 else "reject")
    for session in (kim, lee, max_):
        assert states(session) == {"accepted": 4, "edited": 3, "rejected": 13}
    before = kim.progress()["agreement"]
    assert len(before) == 1
    for i, one in enumerate(ids):
        (word,) = (word for word in lee.show(one, "l")["record"]["said"] if word["reviewer"] == "lee")
        say(lee, f"u{i}", one, "undo", undoes=word["name"])
        verdict = "reject" if i % 2 == 0 else "accept"  # as kim
        say(lee, f"m{i}", one, verdict)
        say(max_, f"x{i}", one, verdict)
    assert kim.progress()["agreement"] == before


def test_of_records_that_nobody_is_blind_on_all_who_decided_are_compared(tmp_path: Path) -> None:
    sessions = [opened(tmp_path, name, 4) for name in ("kim", "lee", "max")]
    for i, entry in enumerate(sessions[0].records.entries):
        for session in sessions:
            say(session, f"{session.reviewer}{i}", entry.id, "accept" if i % 2 else "reject")
    assert len(sessions[0].progress()["agreement"]) == 3
    assert opened(tmp_path, setting=Setting(share_for_two=1e-9)).progress()["agreement"] == []


@pytest.mark.parametrize("depth", [95, 150, 500, 100_000])
def test_what_is_nested_deeper_than_anybody_needs_is_counted_as_unreadable(tmp_path: Path, depth: int) -> None:
    fields = json.dumps({**record("question", "answer"), "more": "DEEP"})
    nested = fields.replace('"DEEP"', "[" * depth + "]" * depth)
    write_records(tmp_path, [record("another", "answer")])
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write(nested + "\n")
    session = opened(tmp_path)
    is_read = depth < 100
    assert session.progress()["num"] == (2 if is_read else 1)
    assert session.progress()["change"] == ("" if is_read else "1 line cannot be read, and will not be trained.")
    for entry in session.records.entries:
        shown = session.show(entry.id, "w")["record"]
        json.dumps(shown)
        say(session, entry.id, entry.id, "edit", texts={"messages.1.content": "better"})
    outcomes = pass_gate(
        DataConfig.model_validate(
            {
                "sources": [{"name": "s", "path": str(tmp_path), "constructed": True}],
                "cache_dir": str(tmp_path / "cache"),
            }
        )
    ).passed["s"]
    assert outcomes["left_out"] == ({} if is_read else {"unreadable": 1})
    line = (tmp_path / "decisions.jsonl").read_text().splitlines()[-1]
    assert read_decision(line.replace('"better"', "[" * depth + "]" * depth).encode()) is None or is_read
