"""Decisions are on disk, in any number of processes, and the state follows from their lines."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sft.approval.decisions import VERDICTS, Decision, DecisionFile, Decisions
from sft.approval.record_set import identity
from tests.forked_ranks import warm_command

NUM_PROCESSES, NUM_EACH = 4, 40


def decision(name: str, record: str, verdict: str, reviewer: str = "kim", text: str = "") -> Decision:
    edited = {"messages": [{"role": "user", "content": text}]} if verdict == "edit" else None
    return Decision(name, record, verdict, reviewer, "2026-11-28T12:00:00Z", 1.5, "", edited)  # type: ignore[arg-type]


def made(text: str) -> str:
    return identity({"messages": [{"role": "user", "content": text}]})


def test_what_several_processes_append_at_once_is_all_there(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    commands = [
        warm_command("tests.approval.appending", str(path), f"p{i}", str(NUM_EACH)) for i in range(NUM_PROCESSES)
    ]
    for process in [subprocess.Popen(command) for command in commands]:
        assert process.wait(60) == 0
    found = DecisionFile(path).read_new()
    assert len(found) == len({one.name for one in found}) == NUM_PROCESSES * NUM_EACH
    for i in range(NUM_PROCESSES):
        assert [one.record for one in found if one.reviewer == f"p{i}"] == [f"r{n}" for n in range(NUM_EACH)]


def test_half_a_line_of_a_killed_process_is_skipped_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    file = DecisionFile(path)
    file.append(decision("1", "a", "accept"))
    with path.open("ab") as torn:
        torn.write(b'{"name": "2", "rec')
    reader = DecisionFile(path)
    assert [one.name for one in reader.read_new()] == ["1"]
    file.append(decision("3", "b", "reject"))
    assert [one.name for one in reader.read_new()] == ["3"]


def test_what_is_no_decision_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    lines = [
        "[1]",
        "no json",
        "{}",
        '{"name": "1", "record": "a", "verdict": "burn", "reviewer": "kim", "time": ""}',
        '{"name": "2", "record": "a", "verdict": "edit", "reviewer": "kim", "time": ""}',
        '{"name": "3", "record": "a", "verdict": "accept", "reviewer": "kim", "time": "", "later": 1}',
    ]
    path.write_text("\n".join(lines) + "\n")
    assert [one.name for one in DecisionFile(path).read_new()] == ["3"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "b", made("x"), made("y")]), st.sampled_from(VERDICTS), st.sampled_from("kl"))
)


def built(steps: list[tuple[str, str, str]]) -> list[Decision]:
    return [decision(str(i), record, verdict, who, "xy"[i % 2]) for i, (record, verdict, who) in enumerate(steps)]


@given(STEPS, st.sampled_from(["a", "b"]), st.sampled_from(["accept", "edit", "reject", "skip", "flag"]))
def test_undo_takes_back_exactly_the_last_decision(steps, record, verdict) -> None:
    before, after = Decisions(built(steps)), Decisions(built(steps))
    after.add(decision("new", record, verdict, text="z"))
    after.add(decision("undo", record, "undo"))
    for one in ("a", "b"):
        assert {who: w.decision for who, w in before.last(one).items()} == {
            who: w.decision for who, w in after.last(one).items()
        }
        assert before.flagged_by(one) == after.flagged_by(one)
        assert before.versions(one) == after.versions(one)


@given(STEPS, st.data())
def test_an_undo_with_a_name_takes_back_the_decision_of_this_name_and_no_other(steps, data) -> None:
    said = [one for one in built(steps) if one.verdict != "undo"]
    taken = data.draw(st.sampled_from([None, *said]))
    name, record, who = (taken.name, taken.record, taken.reviewer) if taken else ("unknown", "a", "k")
    after = Decisions([*said, replace(decision("undo", record, "undo", who), undoes=name)])
    before = Decisions([one for one in said if one is not taken])
    for one in ("a", "b"):
        for reviewer in "kl":
            names = [word.decision.name for word in before.words(one, reviewer)]
            assert [word.decision.name for word in after.words(one, reviewer)] == names


@given(STEPS)
def test_a_decision_that_is_sent_twice_counts_once(steps) -> None:
    once, twice = Decisions(built(steps)), Decisions([one for one in built(steps) for _ in range(2)])
    for record in ("a", "b"):
        assert once.last(record) == twice.last(record)


@given(STEPS)
def test_the_last_decision_of_each_reviewer_counts_and_a_skip_only_where_nothing_else_was_said(steps) -> None:
    stacks: dict[tuple[str, str], list[Decision]] = {}
    for one in built(steps):
        stack = stacks.setdefault((one.record, one.reviewer), [])
        if one.verdict == "undo":
            del stack[-1:]
        else:
            stack.append(one)
    state = Decisions(built(steps))
    for record in ("a", "b"):
        expected = {
            who: ([one for one in stack if one.verdict != "skip"] or stack)[-1]
            for (of, who), stack in stacks.items()
            if of == record and stack
        }
        assert {who: word.decision for who, word in state.last(record).items()} == expected


def test_edits_lead_to_the_version_that_counts_also_around_in_a_circle() -> None:
    first = decision("1", "a", "edit", text="x")
    assert Decisions([first]).versions("a") == ["a", made("x")]
    chain = [first, decision("2", made("x"), "edit", "lee", "y")]
    assert Decisions(chain).versions("a") == ["a", made("x"), made("y")]
    back = [*chain, replace(decision("3", made("y"), "edit", text="x"))]
    assert Decisions(back).versions("a") == ["a", made("x"), made("y"), made("x")]


def test_the_file_is_read_and_written_by_all_who_may_read_and_write_the_folder(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        DecisionFile(tmp_path / "d.jsonl").append(decision("1", "a", "accept"))
    finally:
        os.umask(before)
    assert (tmp_path / "d.jsonl").stat().st_mode & 0o777 == 0o664
