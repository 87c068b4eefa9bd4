"""`sft review` without a browser: the state as a table, other tools, and one message for each mistake."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.cli import main
from sft.approval.decisions import DecisionFile
from sft.approval.record_set import find_place, open_records
from sft.review.session import ReviewSession, Setting
from tests.approval.test_decisions import decision
from tests.review.served import record, write_records
from tests.test_run_claim import as_nobody


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = [record(f"question {i}", "a", ("rare" if i == 0 else "common")) for i in range(100)]
    return write_records(tmp_path / "made", made)


def decide(folder: Path, num: int, verdict: str, reviewer: str = "kim", start: int = 0) -> None:
    entries = open_records(folder / "records.jsonl").entries[start : start + num]
    file = DecisionFile(folder / "decisions.jsonl")
    for entry in entries:
        file.append(decision(f"{reviewer}{entry.id}", entry.id, verdict, reviewer))


def test_the_table_says_what_is_approved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decide(folder, 10, "accept")
    decide(folder, 6, "accept", "lee")
    decide(folder, 2, "reject", "lee", start=6)
    decide(folder, 1, "flag", start=20)
    assert main(["review", str(folder), "--status", "--sample", "0.5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["rare", "1", "0", "0", "0", "0"] in lines
    assert ["all", "8", "0", "2", "1", "89"] in lines
    text = " ".join(word for line in lines for word in line)
    assert "Approved one by one: 8 records." in text
    assert "the stated bound 50.0%" in text
    assert "kim and lee both decided on 8 records: kappa 0.00" in text
    assert "cannot be read" not in text
    assert not (folder / ".decisions.jsonl.open").exists(), "to look changes nothing"
    with (folder / "decisions.jsonl").open("a") as file:
        file.write('{"verdict": "reject"}\n{"name": "hal')
    assert main(["review", str(folder), "--status"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1 line that cannot be read as decisions: 20. What they say would not count." in text
    assert "The last line of" in text
    assert "is unfinished" in text
    assert "Approved one by one: 8 records." in text


def test_the_approved_records_are_written_after_their_edits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "approved.jsonl"
    assert main(["review", str(folder), "--approved", str(out)]) == 2
    assert "is approved. Review them first" in capsys.readouterr().err
    assert not out.exists()
    decide(folder, 3, "accept")
    decide(folder, 1, "reject", "lee", start=2)
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    edited = records[5] | {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "better"}]}
    edit = decision("e", open_records(folder / "records.jsonl").entries[5].id, "edit")
    DecisionFile(folder / "decisions.jsonl").append(replace(edit, edited=edited))
    assert main(["review", str(folder), "--approved", str(out)]) == 0
    assert capsys.readouterr().out == f"3 approved records in {out}\n"
    written = [json.loads(line)["messages"] for line in out.read_text().splitlines()]
    assert written == [record["messages"] for record in (*records[:2], edited)]
    with (folder / "decisions.jsonl").open("ab") as file:
        file.write(b'{"verdict": "reject"}\n')
    assert main(["review", str(folder), "--approved", str(out)]) == 2
    assert "cannot be read as decisions: 6" in capsys.readouterr().err, "it may be a rejection, as for `sft prepare`"


def test_records_go_to_another_tool_and_come_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "tasks.json"
    assert main(["review", str(folder), "--export", "label-studio", str(out)]) == 0
    assert main(["review", str(folder), "--import", "label-studio", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == f"100 records in {out}\n"
    assert "tasks.json holds no decision" in said.err, "nobody has said anything"


def test_nothing_is_written_into_a_construction_whose_log_is_paid(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "manifest.json").write_text('{"kind": "construction"}')
    (folder / "log").mkdir()
    paid = folder / "log" / "replies.jsonl"
    paid.write_text("paid\n")
    decide(folder, 1, "accept")
    for arguments in (["--export", "argilla", str(paid)], ["--approved", str(folder / "dropped.jsonl")]):
        assert main(["review", str(folder), *arguments]) == 2
        assert "whose log holds what was paid: give a file elsewhere" in capsys.readouterr().err
    assert paid.read_text() == "paid\n"
    assert not (folder / "dropped.jsonl").exists()
    out = folder.parent / "approved.jsonl"
    assert main(["review", str(folder), "--approved", str(out), "--sample", "0.5"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"1 approved record in {out}\nOf the sample, ")
    assert "the stated bound 50.0%" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing is not there"),
        (["."], "has no records.jsonl"),
        (["made", "--export", "excel", "x"], "There is no tool 'excel' here, only label-studio and argilla"),
        (["made", "--export", "argilla", "made/records.jsonl"], "made/records.jsonl is a file of the set"),
        (["made", "--import", "argilla", "nothing"], "nothing cannot be read"),
        (["made", "--reviewer", " "], "Give --reviewer NAME"),
        (["made", "--port", "99999"], "port 99999 cannot be used"),
        (["wrong.jsonl", "--status"], "holds no record"),
        (["blocked.jsonl", "--status"], "blocked.decisions.jsonl cannot be read"),
        (["x" * 300, "--status"], "cannot be read: File name too long"),
    ],
)
def test_one_message_for_a_mistake(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("wrong.jsonl").write_text(f"{'[' * 100_000}\n")
    Path("blocked.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    Path("blocked.decisions.jsonl").mkdir()
    assert main(["review", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_records_that_may_not_be_read_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    folder = Path("folder")
    folder.mkdir(mode=0o755)
    path = folder / "secret.jsonl"
    path.write_text('{"instruction": "q", "output": "a"}\n')
    path.chmod(0o600)
    said = as_nobody(lambda: ReviewSession(find_place(path), "kim", Setting()))
    assert said == f"{path} cannot be read: Permission denied."
    folder.chmod(0o700)
    assert as_nobody(lambda: find_place(path)) == f"{path} cannot be read: Permission denied."


@pytest.mark.parametrize("bound", ["0", "1.5", "x"])
def test_a_bound_is_a_share(folder: Path, bound: str) -> None:
    with pytest.raises(SystemExit) as error:
        main(["review", str(folder), "--sample", bound])
    assert error.value.code == 2


def test_the_page_ends_in_order(folder: Path) -> None:
    command = [sys.executable, "-m", "launcher", "review", str(folder), "--reviewer", "kim", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "The page has ended. Every decision that it said to be saved is kept.\n")
