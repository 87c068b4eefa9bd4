"""The page in a real Chromium: the whole way by keyboard, hostile texts, two windows, a server that is killed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.review.session import Setting
from sft.review.template_view import TemplateView
from sft.review.trained_form import TrainedForm
from sft.schema import JsonObject
from tests.review.browser import Browser, browser, needs_browser
from tests.review.served import own_process, read_decisions, record, served, write_records

pytestmark = needs_browser

HOSTILE = (
    "<script>document.title = 'taken'</script>",
    "</textarea><img src=x onerror=\"document.title='taken'\">",
    "javascript:document.title='taken'",
    "</pre><a href='https://evil.example/'>click</a>&lt;b&gt;",
    "\u202eright to left\u200b",
    "مرحبا بالعالم",
    "数学 한국어 👩‍👩‍👧",
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


def answers(num: int) -> list[dict[str, object]]:
    return [record(f"question {i}", f"answer {i} is here", judge=i / 10) for i in range(num)]


def test_the_whole_way_by_keyboard(chromium: Browser, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", answers(7))
    with served(folder) as address:
        chromium.open(address)
        chromium.wait_for("#status", "0 of 7 decided")
        assert chromium.run("return document.activeElement.id") == "title", "a screen reader begins with the record"
        assert "question 0" in chromium.text("#texts"), "the least sure first"

        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. 1 of 7 decided")
        assert read_decisions(folder)[-1]["verdict"] == "accept"

        chromium.press("e")
        chromium.press("End")
        chromium.type(" and there")
        chromium.wait_for("#changes ins", "and there")
        chromium.press("Control+Enter")
        chromium.wait_for("#status", "Edited and accepted, saved. 2 of 7")
        edited = read_decisions(folder)[-1]
        assert edited["edited"]["messages"][1]["content"] == "answer 1 is here and there"
        assert edited["edited"]["messages"][0]["content"] == "question 1"

        chromium.press("r")
        chromium.wait_for("#why", "Why is it rejected")
        chromium.press("2")
        chromium.wait_for("#status", "Rejected, saved. 3 of 7")
        assert read_decisions(folder)[-1]["reason"] == "does not do what is asked"
        chromium.press("r", *["Tab"] * 6)
        chromium.type("out of date 6")
        chromium.press("Enter")
        chromium.wait_for("#status", "Rejected, saved. 4 of 7")
        assert read_decisions(folder)[-1]["reason"] == "out of date 6"

        chromium.press("f")
        chromium.wait_for("#status", "Flagged, saved. 4 of 7")
        chromium.press("s")
        chromium.wait_for("#status", "Skipped, saved. 4 of 7")
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. 5 of 7")
        assert "question 5" in chromium.text("#texts"), "what was skipped comes again"

        chromium.press("u")
        chromium.wait_for("#status", "Undone, saved. 4 of 7")
        assert "question 6" in chromium.text("#texts")
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. 5 of 7")

        chromium.press("/")
        chromium.type("QUESTION 2")
        chromium.wait_for("#found", "question 2")
        chromium.press("Escape", "/")
        chromium.type("QUESTION 3")
        chromium.wait_for("#found", "question 3")
        chromium.press("Enter")
        chromium.wait_for("#texts", "question 3")
        assert "kim: reject – out of date 6" in chromium.text("#said")
        chromium.press("e", "Escape")
        chromium.wait_for("#status", "Left as it was")
        chromium.press("?")
        chromium.wait_for("#help", "undo your last decision")
        chromium.press("Escape")
        chromium.press("j")
        assert chromium.run("return document.activeElement.getAttribute('aria-label')") == "user"
        assert chromium.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid", "it is seen"
    verdicts = [one["verdict"] for one in read_decisions(folder)]
    assert verdicts == ["accept", "edit", "reject", "reject", "flag", "skip", "accept", "undo", "accept"]
    assert all(one["seconds"] >= 0 for one in read_decisions(folder))


def test_texts_of_records_are_only_texts(chromium: Browser, tokenizer_dir, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", [record(text, f"{text} again", text) for text in HOSTILE])
    data = DataConfig(sources=(SourceConfig(name="s", path=str(folder)),))
    view = TemplateView(data, ModelConfig(path=str(tokenizer_dir("chatml")))).parts
    with served(folder, HOSTILE[0], view=view) as address:
        chromium.open(address)
        for i in range(len(HOSTILE)):
            chromium.wait_for("#status", f"{i} of {len(HOSTILE)} decided")
            chromium.press("t")
            chromium.wait_for("#rendered mark", "again")
            chromium.press("t", "e", "End")
            chromium.type("<b>x")
            chromium.wait_for("#changes ins", "<b>x")
            tags = chromium.run(
                "return [...document.querySelectorAll('img, a, b, script, iframe')].map((e) => e.outerHTML)"
            )
            assert tags == ['<script src="page.js" type="module"></script>']
            chromium.press("Control+Enter")
        chromium.wait_for("#status", "Nothing is left")
        assert chromium.run("return document.title") == "Review"
    made = sorted(one["edited"]["messages"][1]["content"] for one in read_decisions(folder))
    assert made == sorted(f"{text} again<b>x" for text in HOSTILE)


UNSEEN = "\u202e\u200b\x1b\x00\ufe00\ufe0f\u3164\u115f\uffa0\u034f\u180b\u2065\U000e0041\U000e0080\U000e0100\U000e01ef"
"""Each behind a letter: none of them is seen there."""
SEEN = "नी\u200cलम می\u200cخواهم 👩🏽\u200d🚀 ❤\ufe0f\u200d🔥 1\ufe0f\u20e3 \U0001fae9"
HIDDEN_JOINERS = "a\u200cb\u200d\u200cc 字\u200d字 1\ufe0f"


def test_what_cannot_be_seen_is_spelled_and_texts_run_in_their_direction(chromium: Browser, tmp_path: Path) -> None:
    hidden = "".join(f"x{char}" for char in UNSEEN) + HIDDEN_JOINERS
    with served(write_records(tmp_path / "made", [record(hidden + SEEN, HOSTILE[5], "ta\u3164sk")])) as address:
        chromium.open(address)
        chromium.wait_for("#status", "0 of 1")
        spelled = chromium.run("return [...document.querySelectorAll('#texts .spelled')].map((e) => e.textContent)")
        assert spelled == [f"U+{ord(char):04X}" for char in UNSEEN + "\u200c\u200d\u200c\u200d\ufe0f"]
        assert chromium.run("return document.querySelector('#texts pre').textContent").endswith(SEEN)
        assert chromium.text("#title") == "taU+3164sk", "a task may be a part of the prompt"
        sides = chromium.run(
            "return [...document.querySelectorAll('#texts pre')].map((e) => getComputedStyle(e).direction)"
        )
        assert sides == ["ltr", "rtl"]


def open_by_search(chromium: Browser, words: str) -> None:
    chromium.press("/")
    chromium.type(words)
    chromium.wait_for("#found", words)
    chromium.press("Enter")
    chromium.wait_for("#texts", words)


def test_an_edit_is_undone_in_a_new_window(chromium: Browser, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", answers(2))
    with served(folder) as address:
        chromium.open(address)
        chromium.wait_for("#status", "0 of 2")
        chromium.press("e", "End", "!", "Control+Enter")
        chromium.wait_for("#status", "Edited and accepted, saved. 1 of 2")
        chromium.open(address)
        chromium.wait_for("#status", "1 of 2")
        open_by_search(chromium, "question 0")
        assert "kim: edit" in chromium.text("#said")
        chromium.press("u")
        chromium.wait_for("#status", "Undone, saved. 0 of 2")
        assert chromium.text("#texts").endswith("answer 0 is here"), "as it was before"
        chromium.press("u")
        chromium.wait_for("#status", "nothing to undo")
    first, last = read_decisions(folder)
    assert (first["record"], last["verdict"]) == (last["record"], "undo")


def test_what_is_saved_is_not_said_to_be_unsaved_and_the_page_goes_on(chromium: Browser, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", answers(3))
    given_out = folder / ".decisions.jsonl.open"
    with served(folder) as address:
        chromium.open(address)
        chromium.wait_for("#status", "0 of 3")
        given_out.unlink()
        given_out.mkdir()  # decisions are taken, and no record can be given out
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. What comes next cannot be shown now: the disk")
        chromium.press("a", "s", "f", "u")
        chromium.wait_for("#status", "Undone, saved. What comes next cannot be shown now")
        assert [one["verdict"] for one in read_decisions(folder)] == ["accept", "undo"], "nothing is shown"
        given_out.rmdir()
        open_by_search(chromium, "question 2")
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. 1 of 3")
    assert [one["verdict"] for one in read_decisions(folder)] == ["accept", "undo", "accept"]


def test_what_the_program_fails_at_is_said_and_not_asked_again_and_again(chromium: Browser, tmp_path: Path) -> None:
    def view(fields: JsonObject, form: TrainedForm) -> list[tuple[bool, str]]:
        return [(True, str(1 / ("question 1" not in fields["messages"][0]["content"])))]

    folder = write_records(tmp_path / "made", answers(3))
    with served(folder, view=view) as address:
        chromium.open(address)
        chromium.wait_for("#status", "0 of 3")
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. What comes next cannot be shown now: the program fails")
        chromium.open(address)
        chromium.wait_for("#status", "^the program fails at it .ZeroDivisionError.")
        assert chromium.text("#away") == ""
        open_by_search(chromium, "question 2")
        chromium.press("r", "1")
        chromium.wait_for("#status", "Rejected, saved.")
    assert [one["verdict"] for one in read_decisions(folder)] == ["accept", "reject"]


def test_a_full_disk_loses_no_decision(chromium: Browser, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", answers(3))
    decisions, aside = folder / "decisions.jsonl", folder / "aside"
    with served(folder) as address:
        chromium.open(address)
        chromium.wait_for("#status", "0 of 3")
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. 1 of 3")
        decisions.rename(aside)
        decisions.mkdir()  # it takes nothing
        chromium.press("e", "End", "!", "Control+Enter")
        chromium.wait_for("#away", "cannot do it now: the disk did not take it.*this browser keeps it")
        chromium.press("Control+Enter", "Escape")
        chromium.open(address)
        chromium.wait_for("#away", "cannot do it now")
        decisions.rmdir()
        aside.rename(decisions)
        chromium.wait_for("#status", "1 that waited in this browser: saved. 2 of 3")
        assert chromium.text("#away") == ""
        assert [one["verdict"] for one in read_decisions(folder)] == ["accept", "edit"]
        chromium.press("u")
        chromium.wait_for("#status", "Undone, saved. 1 of 3")
        assert chromium.text("#texts").endswith("answer 1 is here"), "the last decision of this window"
    assert [one["verdict"] for one in read_decisions(folder)] == ["accept", "edit", "undo"]


def test_two_windows_work_on_different_records(chromium: Browser, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", answers(4))
    with served(folder, setting=Setting(bound=0.5)) as address:
        chromium.open(address)
        chromium.wait_for("#status", "0 of 4")
        first, one = chromium.windows()[0], chromium.text("#facts")
        second = chromium.new_window()
        chromium.switch(second)
        chromium.open(address)
        chromium.wait_for("#status", "0 of 4")
        assert chromium.text("#facts") != one
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. 1 of 4")
        left = chromium.text("#facts")
        chromium.close_window()
        chromium.switch(first)
        chromium.wait(lambda: len(json.loads((folder / ".decisions.jsonl.open").read_bytes())) == 1)
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. 2 of 4")
        assert "2 more are needed" in chromium.text("#sample-text")
        assert chromium.text("#facts") == left, "the next one is that of the window that is closed"
    assert len({one["record"] for one in read_decisions(folder)}) == 2


def test_a_killed_server_loses_nothing_and_nothing_is_sent_twice(chromium: Browser, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "made", answers(4))
    with own_process(folder, "--reviewer", "kim", "--port", "0") as (process, address):
        chromium.open(address)
        chromium.wait_for("#status", "0 of 4")
        chromium.press("a")
        chromium.wait_for("#status", "Accepted, saved. 1 of 4")
        process.kill()
        process.wait()
        chromium.press("r")
        chromium.press("1")
        chromium.wait_for("#away", "The server is away.*not saved yet")
        chromium.press("a", "a")
        assert "Saving" in chromium.text("#status")
    assert [one["verdict"] for one in read_decisions(folder)] == ["accept"]
    port = address.split(":")[2].partition("/")[0]
    with own_process(folder, "--reviewer", "lee", "--port", port) as (_, of_lee):
        chromium.wait_for("#away", "open the address that it prints.*this browser keeps it")
        chromium.press("a")
        chromium.open(of_lee)
        chromium.wait_for("#status", "^1 of 4")
    assert len(read_decisions(folder)) == 1, "it is not lee's"
    with own_process(folder, "--reviewer", "kim", "--port", port) as (_, again):
        chromium.open(again)
        chromium.wait_for("#status", "1 that waited in this browser: saved. 2 of 4")
        chromium.open(again)
        chromium.wait_for("#status", "^2 of 4")
    verdicts = [one["verdict"] for one in read_decisions(folder)]
    assert verdicts == ["accept", "reject"]
    assert json.dumps(read_decisions(folder)[1]["reason"]) == '"wrong answer"'
