"""Nobody but the page gets in, no file but the page's own gets out, and what is said to be saved is saved."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sft.approval.record_set import find_place
from sft.review.server import _FILES
from sft.review.session import ReviewSession, Setting
from sft.review.trained_form import TrainedForm
from sft.schema import JsonObject
from tests.review.served import TOKEN, own_process, read_decisions, record, served, write_records


class Client:
    """Speaks HTTP as anybody could, with any path and any headers."""

    def __init__(self, address: str, folder: Path) -> None:
        self.host, self.folder = urlsplit(address).netloc, folder

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        connection.request("GET" if body is None else "POST", path, content, sent)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, dict(answer.headers)

    def told(self, name: str, body: Any) -> Any:
        status, text, _ = self.ask(f"/{TOKEN}/{name}", body)
        assert status == 200, text
        return json.loads(text)

    def decide(self, name: str, shown: Any, verdict: str = "accept", **more: Any) -> Any:
        return self.told("decide", {"name": name, "record": shown["record"]["id"], "verdict": verdict, **more})


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    folder = write_records(tmp_path / "made", [record(f"question {i}", f"answer {i}") for i in range(5)])
    with served(folder) as address:
        yield Client(address, folder)


def test_every_request_needs_the_token(client: Client) -> None:
    for path in ("/", "/page.js", "/progress", f"/{TOKEN[:-1]}/", f"/{TOKEN}x/progress", "/%ff/progress", "/%C3%A9/"):
        assert client.ask(path)[:2] == (404, "Not Found")
    assert client.ask("/wrong/decide", {"name": "1"})[0] == 404
    assert client.ask(f"/{TOKEN}/")[0] == 200
    assert read_decisions(client.folder) == []


def test_another_host_and_another_origin_are_refused(client: Client) -> None:
    page = f"/{TOKEN}/"
    for host in ("evil.example", "evil.example:80", f"{client.host}.evil.example", "127.0.0.1", "127.0.0.1:1"):
        assert client.ask(page, Host=host)[0] == 421
    port = client.host.partition(":")[2]
    assert client.ask(page, Host=f"localhost:{port}")[0] == 200
    next_record = f"/{TOKEN}/next"
    for origin in ("http://evil.example", "null", f"https://{client.host}", f"http://localhost:{port}", ""):
        assert client.ask(next_record, {"window": "w"}, Origin=origin)[0] == 403
    assert client.ask(next_record, {"window": "w"}, Sec_Fetch_Site="cross-site")[0] == 403
    assert client.ask(next_record, {"window": "w"}, Sec_Fetch_Site="same-site")[0] == 403
    assert client.ask(next_record, {"window": "w"}, Origin=f"http://{client.host}")[0] == 200


def test_a_form_of_another_page_changes_nothing(client: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client.ask(f"/{TOKEN}/next", {"window": "w"}, Content_Type=kind)[0] == 415
    assert client.ask(f"/{TOKEN}/decide", b"{")[0] == 400
    assert client.ask(f"/{TOKEN}/decide", b"[" * 100_000)[0] == 400
    assert client.ask(f"/{TOKEN}/decide", [1])[0] == 400


def test_no_file_is_reached_by_a_path(client: Client) -> None:
    paths = [
        "../records.jsonl",
        "..%2f..%2fetc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "page.js/../server.py",
        "server.py",
    ]
    paths += ["/etc/passwd", "//etc/passwd", "page.html", "..\\records.jsonl", "page.css%00.py", "records.jsonl"]
    for path in paths:
        assert client.ask(f"/{TOKEN}/{path}")[0] == 404, path


def test_the_page_may_load_and_ask_nothing_but_this_server(client: Client) -> None:
    for path in ("", "page.js", "page.css", "progress", "nothing"):
        headers = client.ask(f"/{TOKEN}/{path}")[2]
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
    page = client.ask(f"/{TOKEN}/")[1]
    script = "".join(client.ask(f"/{TOKEN}/{name}")[1] for name in _FILES if name != "page.css")
    assert not any(word in page for word in ("<style", "style=", "onclick", "http:", "https:"))
    assert not any(word in script for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("))


def test_a_decision_is_on_disk_when_it_is_answered_and_counts_once(client: Client) -> None:
    shown = client.told("next", {"window": "w"})
    for _ in range(3):
        after = client.decide("one", shown, "reject", reason="wrong", seconds=2.25, window="w")
        (found,) = read_decisions(client.folder)
    assert found["record"] == shown["record"]["id"] != after["record"]["id"]
    assert (found["verdict"], found["reviewer"], found["reason"], found["seconds"]) == ("reject", "kim", "wrong", 2.2)
    assert after["progress"]["total"] == {"open": 4, "accepted": 0, "edited": 0, "rejected": 1, "flagged": 0}


def test_a_server_that_is_killed_at_any_moment_has_kept_what_it_answered_and_nothing_twice(tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", [record(f"question {i}", "a") for i in range(5)])
    answered: list[str] = []
    sent = [f"d{i}" for i in range(2000)]
    for seconds in (0.05, 0.2):
        with own_process(folder, "--reviewer", "kim", "--port", "0") as (process, address):
            parts = urlsplit(address)
            threading.Timer(seconds, process.kill).start()
            with suppress(OSError, http.client.HTTPException):
                client = Client(address, folder)
                shown = json.loads(client.ask(f"{parts.path}next", {"window": "w"})[1])["record"]["id"]
                for name in sent[max(0, len(answered) - 3) :]:
                    given = {"name": name, "record": shown, "verdict": "skip"}
                    assert client.ask(f"{parts.path}decide", given)[0] == 200
                    answered.append(name)
            process.wait()
    kept = [one["name"] for one in read_decisions(folder)]
    assert {*answered} <= {*kept}
    assert len(kept) == len({*kept})


def test_what_is_no_decision_is_refused_with_a_reason(client: Client) -> None:
    shown = client.told("next", {"window": "w"})
    known = shown["record"]["id"]
    wrong: list[dict[str, Any]] = [
        {},
        {"name": 1, "record": known, "verdict": "accept"},
        {"name": "x" * 101, "record": known, "verdict": "accept"},
        {"name": "a", "record": known, "verdict": "burn"},
        {"name": "a", "record": known, "verdict": []},
        {"name": "a", "record": "../../etc/passwd", "verdict": "accept"},
        {"name": "a", "record": {}, "verdict": "accept"},
        {"name": "a", "record": known, "verdict": "edit"},
        {"name": "a", "record": known, "verdict": "edit", "texts": {"messages.9.content": "x"}},
        {"name": "a", "record": known, "verdict": "edit", "texts": {"task": "x"}},
        {"name": "a", "record": known, "verdict": "edit", "texts": {"messages.1.content": ""}},
    ]
    for given in wrong:
        status, text, _ = client.ask(f"/{TOKEN}/decide", given)
        assert (status, bool(text)) == (409, True) or "this record is not in the file" in json.loads(text)["refused"]
    assert read_decisions(client.folder) == []


def test_an_edit_makes_another_record_and_one_without_a_change_accepts(client: Client) -> None:
    first = client.told("next", {"window": "w"})
    texts = {text["place"]: text["text"] for text in first["record"]["texts"]}
    second = client.decide("same", first, "edit", texts=texts, window="w")
    client.decide("other", second, "edit", texts={**texts, "messages.1.content": "better"}, window="w")
    same, other = read_decisions(client.folder)
    assert (same["verdict"], same["edited"]) == ("accept", None)
    assert other["edited"]["messages"][1]["content"] == "better"
    total = json.loads(client.ask(f"/{TOKEN}/progress")[1])["total"]
    assert (total["accepted"], total["edited"], total["open"]) == (1, 1, 3)


def test_what_may_be_trained_is_what_was_accepted_as_it_was_edited(client: Client) -> None:
    shown = client.told("next", {"window": "w"})
    shown = client.decide("1", shown, "edit", texts={"messages.1.content": "better"}, window="w")
    shown = client.decide("2", shown, "reject", window="w")
    kept = shown["record"]["texts"][1]["text"]
    client.decide("3", shown, window="w")
    found = ReviewSession(find_place(client.folder), "lee", Setting()).approved()
    assert {fields["messages"][1]["content"] for fields in found} == {"better", kept}


def test_windows_and_reviewers_get_different_records_at_once(client: Client) -> None:
    with served(client.folder, "lee") as address:
        lee, got, threads = Client(address, client.folder), [], []

        def take(one: Client, window: str) -> None:
            got.append(one.told("next", {"window": window})["record"]["id"])

        for one in (client, lee):
            threads += [threading.Thread(target=take, args=(one, window)) for window in ("v", "w")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(got)) == 4
        first = client.told("next", {"window": "v"})
        client.decide("1", first, window="v")
        assert json.loads(lee.ask(f"/{TOKEN}/progress")[1])["total"]["accepted"] == 1


def test_what_two_decide_on_is_shown_to_the_second_without_the_words_of_the_first(tmp_path: Path) -> None:
    folder = write_records(tmp_path, [record("q", "a")])
    place, setting = find_place(folder), Setting(share_for_two=1.0)
    kim, lee, max_ = (ReviewSession(place, name, setting) for name in ("kim", "lee", "max"))
    shown = kim.next("w")["record"]
    made = {"texts": {"messages.1.content": "b"}}
    assert kim.decide({"name": "1", "record": shown["id"], "verdict": "edit", **made}, "w")["record"] is None
    blind = lee.next("w")["record"]
    assert (blind["id"], blind["said"], blind["state"]) == (shown["id"], [], "open")
    assert lee.decide({"name": "2", "record": shown["id"], "verdict": "edit", **made}, "w")["record"] is None
    assert max_.next("w")["record"] is None
    (pair,) = max_.progress()["agreement"]
    assert pair == "kim and lee both decided on 1 record, always the same: kappa is not defined."


def test_a_record_that_changes_on_the_disk_cannot_be_accepted(client: Client) -> None:
    shown = client.told("next", {"window": "w"})
    path = client.folder / "records.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("answer", "ANSWER"), encoding="utf-8")
    after = client.decide("1", shown, window="w")
    assert after["refused"] == "this record is not in the file"
    assert after["record"]["id"] != shown["record"]["id"]
    assert after["progress"]["total"]["open"] == 5
    assert after["progress"]["change"] == "The file was written anew: 5 records more, 5 not there any more."
    assert read_decisions(client.folder) == []
    assert "refused" not in client.decide("2", after, window="w")
    path.unlink()
    status, text, _ = client.ask(f"/{TOKEN}/next", {"window": "w"})
    assert (status, "cannot be read" in text) == (503, True), "it may be there again later"


def test_a_disk_that_takes_nothing_is_said(client: Client) -> None:
    shown = client.told("next", {"window": "w"})
    (client.folder / "decisions.jsonl").unlink()
    (client.folder / "decisions.jsonl").mkdir()
    status, text, _ = client.ask(f"/{TOKEN}/decide", {"name": "1", "record": shown["record"]["id"], "verdict": "skip"})
    assert (status, "the disk did not take it" in text) == (507, True)


def test_what_is_on_disk_is_saved_though_nothing_more_can_be_shown(client: Client) -> None:
    shown = client.told("next", {"window": "w"})
    given_out = client.folder / ".decisions.jsonl.open"
    given_out.unlink()
    given_out.mkdir()
    for _ in range(2):
        assert "the disk" in client.decide("1", shown, window="w")["unshown"]
    assert [one["verdict"] for one in read_decisions(client.folder)] == ["accept"]
    given_out.rmdir()
    after = client.decide("1", shown, window="w")
    assert after["progress"]["total"]["accepted"] == 1


def test_an_undo_gives_back_what_it_took_back_and_is_refused_where_there_is_nothing(client: Client) -> None:
    first = client.told("next", {"window": "w"})
    texts = {"messages.1.content": "better"}
    client.decide("1", first, "edit", texts=texts, window="w")
    edited = json.loads(client.ask(f"/{TOKEN}/record?record={first['record']['id']}&window=w")[1])
    (word,) = edited["record"]["said"]
    assert edited["record"]["id"] != first["record"]["id"] == word["record"]
    given = {"name": "2", "record": edited["record"]["id"], "verdict": "undo", "undoes": word["name"], "window": "w"}
    status, text, _ = client.ask(f"/{TOKEN}/decide", given)
    assert (status, "kim has said nothing" in text) == (409, True)
    for _ in range(2):
        undone = client.told("decide", {**given, "record": word["record"]})
        assert (undone["record"]["id"], undone["record"]["state"]) == (first["record"]["id"], "open")
    assert [one["verdict"] for one in read_decisions(client.folder)] == ["edit", "undo"]


def test_what_the_program_fails_at_is_said_and_what_it_saved_is_saved(tmp_path: Path) -> None:
    def view(fields: JsonObject, form: TrainedForm) -> list[tuple[bool, str]]:
        return [(True, str(1 / fields["messages"].count(None)))]

    folder = write_records(tmp_path, [record("q 1", "a"), record("q 2", "a")])
    with served(folder, view=view) as address:
        client = Client(address, folder)
        for _ in range(2):
            status, text, _ = client.ask(f"/{TOKEN}/next", {"window": "w"})
            assert (status, text.partition(":")[0]) == (500, "the program fails at it (ZeroDivisionError)")
        known = json.loads(client.ask(f"/{TOKEN}/search?words=q")[1])[0]["id"]
        answer = client.told("decide", {"name": "1", "record": known, "verdict": "accept"})
        assert "the program fails" in answer["unshown"]
    assert [one["verdict"] for one in read_decisions(folder)] == ["accept"]


def test_words_are_found_in_texts_in_any_case(client: Client) -> None:
    found = json.loads(client.ask(f"/{TOKEN}/search?words=QUESTION+3")[1])
    assert [one["excerpt"] for one in found] == ["question 3\nanswer 3"]
    shown = json.loads(client.ask(f"/{TOKEN}/record?record={found[0]['id']}&window=w")[1])
    assert shown["record"]["id"] == found[0]["id"]
    assert client.ask(f"/{TOKEN}/record?record=nothing&window=w")[0] == 409
