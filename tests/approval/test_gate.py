"""Of a constructed source people's approved records are read, after their edits, and nothing else."""

import json
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.approval.decisions import DecisionFile
from sft.approval.gate import Gated, pass_gate
from sft.approval.mark import Approval, approval_of, marked
from sft.approval.record_set import identity
from sft.config import DataConfig
from sft.errors import UserError
from sft.evaluation.made_data import made_rows
from tests.approval.reviewed import constructed, draft, edit, say
from tests.approval.test_decisions import decision


def gate(tmp_path: Path, *paths: Path, approve: Any = "each", **settings: Any) -> Gated:
    sources = [
        {"name": f"s{i}", "path": str(path), "constructed": True, "approve": approve} for i, path in enumerate(paths)
    ]
    return pass_gate(DataConfig.model_validate({"sources": sources, "cache_dir": tmp_path / "cache", **settings}))


def trained(gated: Gated) -> list[str]:
    """The answers that the first source reads."""
    lines = Path(gated.data.sources[0].path).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [record["messages"][-1]["content"] for record in records]


def gated_or_why(tmp_path: Path, folder: Path) -> Gated | str:
    try:
        return gate(tmp_path, folder)
    except UserError as error:
        return str(error)


def refused(tmp_path: Path, *paths: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        gate(tmp_path, *paths, **settings)
    assert not [*(tmp_path / "cache").rglob("*.partial")]
    return str(error.value)


def test_what_is_approved_is_read_and_each_line_of_the_file_is_counted_once(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made", 6)
    with (folder / "records.jsonl").open("a") as file:
        file.write(json.dumps(draft(0)) + "\nno json\n")
    say(folder, [0, 1, 2], "accept")
    say(folder, [2], "reject", "lee")
    say(folder, [3], "flag")
    edit(folder, 4, "better")
    gated = gate(tmp_path, folder)
    assert trained(gated) == ["1 2 0", "1 2 1", "better"]
    facts = gated.passed["s0"]
    assert facts["left_out"] == {"rejected": 1, "flagged": 1, "open": 1, "equal": 1, "unreadable": 1}
    assert facts["num_read"] == facts["num_passed"] + sum(facts["left_out"].values()) == 8


def test_a_column_that_is_trained_and_was_changed_after_its_approval_is_not_read(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made", 2)
    kind = [{**draft(i), "system": "You are kind."} for i in range(2)]
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kind))
    for i in range(2):
        DecisionFile(folder / "decisions.jsonl").append(decision(str(i), identity(kind[i]), "accept", "kim"))
    assert gate(tmp_path, folder).passed["s0"]["num_passed"] == 2
    rude = {**kind[1], "system": "You are rude."}
    (folder / "records.jsonl").write_text(json.dumps(kind[0]) + "\n" + json.dumps(rude) + "\n")
    gated = gate(tmp_path, folder)
    assert gated.passed["s0"]["left_out"] == {"open": 1}
    assert "rude" not in Path(gated.data.sources[0].path).read_text()


def test_each_record_that_is_read_says_who_approved_it(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0], "accept")
    say(folder, [0], "accept", "lee")
    edit(folder, 1, "better", "lee")
    lines = Path(gate(tmp_path, folder).data.sources[0].path).read_text().splitlines()
    marks = [approval_of(json.loads(line)) for line in lines]
    assert [mark and (mark.rule, mark.reviewers) for mark in marks] == [("each", ("kim", "lee")), ("each", ("lee",))]
    assert all(approval_of({**json.loads(line), "task": "other"}) is None for line in lines)


def test_of_a_constructed_source_only_decisions_count_and_no_approval_that_stands_in_a_record(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0], "accept")
    say(folder, [2], "reject")
    forged = [
        marked(draft(i), Approval(identity(draft(i)), "each", ("kim",), "2026-11-28T12:00:00Z")) for i in range(4)
    ]
    assert all(approval_of(json.loads(json.dumps(record))) for record in forged)
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in forged))
    assert trained(gate(tmp_path, folder)) == ["1 2 0"]
    lines = Path(gate(tmp_path, folder, unreviewed=True).data.sources[0].path).read_text().splitlines()
    assert [approval_of(json.loads(line)) is None for line in lines] == [False, True, True]


def test_another_decision_is_another_file_and_one_that_is_taken_back_the_first_again(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0], "accept")
    first = gate(tmp_path, folder)
    assert gate(tmp_path, folder).data == first.data
    say(folder, [1], "accept")
    second = gate(tmp_path, folder)
    assert trained(second) == ["1 2 0", "1 2 1"]
    assert second.data != first.data
    say(folder, [1], "undo")
    third = gate(tmp_path, folder)
    assert Path(third.data.sources[0].path).read_bytes() == Path(first.data.sources[0].path).read_bytes()


def test_without_an_approval_nothing_is_read_and_the_message_has_all_sources_and_the_command(tmp_path: Path) -> None:
    one, two = constructed(tmp_path / "one"), constructed(tmp_path / "two")
    say(two, [0], "reject")
    say(two, [1], "flag")
    text = refused(tmp_path, one, two, tmp_path / "nothing")
    assert f"data.sources.s0: 4 of 4 records of {one} are not approved (4 open)" in text
    assert f"data.sources.s1: 4 of 4 records of {two} are not approved (2 open, 1 flagged, 1 rejected)" in text
    assert f"sft review {one}\n" in text
    assert "--unreviewed" in text
    assert "data.sources.s2" in text
    assert "is not there" in text


def test_a_sample_that_does_not_suffice_refuses_and_says_how_many_more(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made", 100)
    say(folder, [*range(10)], "accept")
    text = refused(tmp_path, folder, approve={"sample": 0.05, "seed": 3})
    assert "more are needed if none of them is wrong" in text
    assert f"sft review {folder} --sample 0.05 --seed 3" in text
    say(folder, [*range(10, 99)], "accept")
    say(folder, [99], "reject", "lee")
    gated = gate(tmp_path, folder, approve={"sample": 0.2, "seed": 3})
    assert len(trained(gated)) == 99
    assert gated.passed["s0"]["sample"]["num_reviewed"] == 100


def test_records_that_a_sample_stands_for_say_so(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made", 30)
    assert "sample" in refused(tmp_path, folder, approve={"sample": 0.9})
    say(folder, [*range(30)], "accept", "kim")
    say(folder, [7], "undo", "kim")
    gated = gate(tmp_path, folder, approve={"sample": 0.9})
    lines = Path(gated.data.sources[0].path).read_text().splitlines()
    marks = [approval_of(json.loads(line)) for line in lines]
    assert len(marks) == 30
    (of_sample,) = [mark for mark in marks if mark and mark.rule == "sample"]
    assert of_sample.reviewers == ("kim",)
    assert of_sample.bound == 0.9
    assert of_sample.num_wrong == 0


def test_unreviewed_reads_all_but_what_is_rejected_without_a_mark(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0], "accept")
    say(folder, [1], "reject")
    edit(folder, 2, "better")
    gated = gate(tmp_path, folder, unreviewed=True)
    assert trained(gated) == ["1 2 0", "better", "1 2 3"]
    lines = Path(gated.data.sources[0].path).read_text().splitlines()
    assert [approval_of(json.loads(line)) is None for line in lines] == [False, False, True]
    say(folder, [0, 2, 3], "reject", "lee")
    assert "all records" in refused(tmp_path, folder, unreviewed=True)


def test_a_decision_that_cannot_be_read_is_refused_since_it_may_reject(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0], "accept")
    path = folder / "decisions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"verdict": "reject"}\n' + b"\xff\n")
    text = refused(tmp_path, folder)
    assert "2 lines that cannot be read as decisions: 2, 3" in text
    path.write_bytes(whole + b'{"name": "2", "rec')
    assert trained(gate(tmp_path, folder)) == ["1 2 0"], "half a line of a killed process is no decision"
    (row,) = made_rows(gate(tmp_path, folder).passed)
    assert "the last line of the decisions is unfinished" in str(row)


def test_a_last_line_without_a_newline_counts_and_the_next_decision_leaves_it_there(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0, 1], "accept")
    path = folder / "decisions.jsonl"
    by_hand = json.dumps(asdict(decision("by hand", identity(draft(1)), "reject", "lee")))
    path.write_bytes(path.read_bytes() + by_hand.encode())
    assert trained(gate(tmp_path, folder)) == ["1 2 0"]
    reader = DecisionFile(path)
    assert [one.name for one in reader.read_new()][2:] == ["by hand"]
    say(folder, [2], "accept")
    assert trained(gate(tmp_path, folder)) == ["1 2 0", "1 2 2"]
    assert [one.name for one in reader.read_new()] == ["by hand", "kimaccept2"]
    path.write_bytes(path.read_bytes() + b'{"name": "typo", "verdict": "rejct"}')
    assert "1 line that cannot be read as decisions: 5" in refused(tmp_path, folder)
    say(folder, [3], "accept")
    assert "1 line that cannot be read as decisions: 5" in refused(tmp_path, folder), "nothing is deleted"


def test_a_line_that_was_copied_with_its_name_and_says_something_else_is_refused(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0, 1], "accept")
    path = folder / "decisions.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole)
    assert trained(gate(tmp_path, folder)) == ["1 2 0", "1 2 1"], "the same twice counts once"
    for said, other in (('"accept"', '"reject"'), ('"kim"', '"lee"'), ('"undoes": ""', '"undoes": "1"')):
        path.write_text(whole + whole.replace(said, other))
        assert "2 lines that cannot be read as decisions: 3, 4" in refused(tmp_path, folder)


def test_a_file_of_another_tool_is_reviewed_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "foreign.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n{"instruction": "c", "output": "d"}\n')
    text = refused(tmp_path, path)
    assert f"sft review {path}" in text
    assert "JSON" in refused(tmp_path, tmp_path / "nothing.jsonl")


def test_a_killed_or_damaged_gathering_is_made_again(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0], "accept")
    path = Path(gate(tmp_path, folder).data.sources[0].path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert Path(gate(tmp_path, folder).data.sources[0].path).read_bytes() == whole
    (path.parent / "manifest.json").unlink()
    path.write_text("half")
    assert Path(gate(tmp_path, folder).data.sources[0].path).read_bytes() == whole


def test_what_is_decided_and_written_while_it_is_read_counts_as_far_as_it_was_there(tmp_path: Path) -> None:
    folder, num = constructed(tmp_path / "made", 40), 40
    is_over = threading.Event()

    def decide() -> None:
        file = DecisionFile(folder / "decisions.jsonl")
        for i in range(num):
            file.append(replace(decision(str(i), identity(draft(i)), "accept", "kim"), reason="x" * 20_000))
        is_over.set()

    thread, seen = threading.Thread(target=decide), set[int]()
    thread.start()
    while not (was_over := is_over.is_set()) or not seen:
        gated = gated_or_why(tmp_path, folder)
        if isinstance(gated, str):
            assert "40 of 40 records" in gated
            continue
        answers = trained(gated)
        assert answers == [f"1 2 {i}" for i in range(len(answers))], "the first of them, and no half one"
        seen.add(len(answers))
    thread.join()
    assert was_over
    assert len(trained(gate(tmp_path, folder))) == num
    assert len(seen) > 2

    is_over.clear()

    def construct() -> None:
        for more in range(1, 30):
            lines = [json.dumps(draft(i)) + "\n" for i in range(num)]
            lines += [json.dumps(draft(1000 * more)) + "\n"] * more
            (folder / "aside").write_text("".join(lines))
            (folder / "aside").replace(folder / "records.jsonl")
        is_over.set()

    thread = threading.Thread(target=construct)
    thread.start()
    while not is_over.is_set():
        gated = gated_or_why(tmp_path, folder)
        if isinstance(gated, str):
            assert "changes while it is read. Give the command again" in gated
            continue
        assert len(trained(gated)) == num
        facts = gated.passed["s0"]
        written = facts["num_read"] - num
        left_out = {} if not written else {"open": written}
        assert facts["left_out"] == left_out, "of one file, and not of two"
    thread.join()


def test_a_cache_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    folder = constructed(tmp_path / "made")
    say(folder, [0], "accept")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="s0: its approved records cannot be gathered"):
        gate(tmp_path, folder)


VERDICTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["accept", "reject", "flag", "edit"]), st.sampled_from("kl"))
)


@given(VERDICTS)
@settings(max_examples=25, deadline=None)
def test_nothing_is_read_that_somebody_rejects_and_nothing_without_somebody_who_accepts(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, str, str]]
) -> None:
    root = tmp_path_factory.mktemp("gate")
    folder = constructed(root / "made")
    last: dict[tuple[int, str], str] = {}
    for n, (i, verdict, who) in enumerate(said):
        last[i, who] = verdict
        edit(folder, i, f"better {n}", who) if verdict == "edit" else say(folder, [i], verdict, who, str(n))
    accepted = {i for (i, _), verdict in last.items() if verdict in ("accept", "edit")}
    rejected = {i for (i, _), verdict in last.items() if verdict == "reject"}
    try:
        path = Path(gate(root, folder).data.sources[0].path)
    except UserError:
        return
    read = {json.loads(line)["messages"][0]["content"].split()[1] for line in path.read_text().splitlines()}
    assert {int(i) for i in read} <= accepted - rejected
