"""`sft construct` makes more records while people review: what is decided holds for what was seen, and no more."""

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sft.approval.record_set import RecordSet, find_place, open_records
from sft.review.refusals import Refused
from sft.review.session import ReviewSession, Setting
from tests.construction.teaching import FEW_SHOT, NO_FILTERS, lines_of, run, section, teach
from tests.endpoint.chat_server import chat_server
from tests.review.served import read_decisions, record, write_records

NUMS = (10, 20, 40, 70)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.mark.parametrize("setting", [Setting(), Setting(bound=0.3)])
def test_records_that_come_while_people_review_are_reviewed_too(tmp_path: Path, setting: Setting) -> None:
    out, failed = tmp_path / "out", list[BaseException]()
    draw = random.Random(1)

    def slowly(content: Mapping[str, Any]) -> str:
        time.sleep(draw.uniform(0, 0.005))
        return teach(content)

    def construct(url: str) -> None:
        try:
            for num in NUMS[1:]:
                # The second time, records that were there are not any more.
                filters = {**NO_FILTERS, "refusals": {"patterns": ["^[5-9]"]} if num == 20 else False}
                run(section(url, out, ({**FEW_SHOT[0], "num": num},), filters=filters))
        except BaseException as error:
            failed.append(error)

    with chat_server(slowly) as server:
        run(section(server.url, out, ({**FEW_SHOT[0], "num": NUMS[0]},)))
        session = ReviewSession(find_place(out), "kim", setting)
        first = {line["id"] for line in lines_of(out / "records.jsonl")}
        thread = threading.Thread(target=construct, args=(server.url,))
        thread.start()
        said = dict(_reviewed(session, thread))
    thread.join()
    assert not failed
    last = {line["id"] for line in lines_of(out / "records.jsonl")}
    assert last > first
    assert {one["record"] for one in read_decisions(out)} == said.keys() == last
    assert session.progress()["total"]["open"] == 0
    assert session.progress()["change"].startswith("The file was written anew: ")
    accepted = {record for record, verdict in said.items() if verdict == "accept"}
    assert {record["id"] for record in session.approved()} == accepted


def _reviewed(session: ReviewSession, constructing: threading.Thread) -> Iterator[tuple[str, str]]:
    """Decide on all that comes, until nothing comes any more."""
    answer, num = session.next("w"), 0
    while True:
        is_last = not constructing.is_alive()
        record = answer["record"]
        if record is None or record.get("gone"):
            if record is None and is_last:
                return
            answer = session.next("w")
            continue
        num += 1
        verdict = "reject" if num % 5 == 0 else "accept"
        answer = session.decide({"name": str(num), "record": record["id"], "verdict": verdict}, "w")
        if "refused" not in answer:
            yield record["id"], verdict


def test_what_was_decided_holds_only_for_what_was_seen(tmp_path: Path) -> None:
    def written(answers: list[str]) -> None:
        lines = [
            {"messages": [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": answer}]}
            for i, answer in enumerate(answers)
        ]
        (tmp_path / "new").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / "new").replace(tmp_path / "records.jsonl")

    written(["a", "b", "c"])
    session = ReviewSession(find_place(tmp_path), "kim", Setting())
    for i in range(3):
        shown = session.next("w")["record"]
        session.decide({"name": str(i), "record": shown["id"], "verdict": "accept"}, "w")
    written(["another", "more", "a", "b", "C"])
    written(["a", "C", "more", "b"])
    progress = session.next("w")["progress"]
    assert progress["change"] == "The file was written anew: 3 records more, 2 not there any more."
    assert progress["total"] == {"open": 3, "accepted": 1, "edited": 0, "rejected": 0, "flagged": 0}
    written(["a", "b", "c"])
    assert session.progress()["total"]["accepted"] == 3, "what comes back is approved again"
    written([])
    with pytest.raises(Refused, match="holds no record"):
        session.next("w")
    written(["a"])
    assert session.progress()["total"]["accepted"] == 1


def test_ids_that_were_looked_at_in_an_older_file_do_not_take_the_place_of_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(num: int) -> None:
        write_records(tmp_path / "aside", [record(f"q {i}", "a") for i in range(num)])
        (tmp_path / "aside" / "records.jsonl").replace(tmp_path / "records.jsonl")

    def open_while_another_comes(path: Path, **options: bool) -> RecordSet:
        monkeypatch.undo()
        found = open_records(path, **options)
        written(3)
        assert session.progress()["num"] == 3
        return found

    written(2)
    session = ReviewSession(find_place(tmp_path), "kim", Setting(), trust=True)
    monkeypatch.setattr("sft.review.session.open_records", open_while_another_comes)
    session.check_ids()
    assert session.progress()["num"] == 3
