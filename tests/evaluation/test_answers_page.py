"""The page of all answers holds every one as text, lets no other script run, stays small, and finds what is asked."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sft.evaluation.answers_page import asked_in, render_answers
from sft.evaluation.marks import MarkedAnswer
from sft.evaluation.report import write_report
from sft.evaluation.run_records import read_run
from sft.run_folder import RunFolder
from tests.evaluation.answered_run import Task, answered_run

HOSTILE = (
    "</script><script>document.title = 'taken'</script>",
    "<!--<script>",
    "]]>'\"`\\",
    "{{ 7 * 7 }} &lt;b&gt; \\u003c/script>",
    "\x1b[31mred\x07\x00\x08\x7f\u009b31m",
    "\ud800 lone \udfff",
    "\u202eright to left\u2066\u2028\u2029\ufeff",
    "مرحبا بالعالم",
    "数学 한국어 👩‍👩‍👧 e\u0301",
    "https://user:hunter22@example.org/x",
)
NAMES = {"</script><img src=x onerror=alert(1)>": Task((0.0, 1.0), num=6), 'a "quoted" & task': Task((1.0, 0.0), num=6)}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.scripts: list[str] = []
        self.references: list[str | None] = []
        self._is_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.references += [value for name, value in attrs if name in ("src", "href")]
        self._is_script = tag == "script"
        if self._is_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._is_script = False

    def handle_data(self, data: str) -> None:
        if self._is_script:
            self.scripts[-1] += data


def page_of(run: RunFolder, **limits: int) -> str:
    return render_answers(asked_in(run, read_run(run)), run.report.name, **limits)


def data_of(page: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Page(page).scripts[0])
    return content


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return answered_run(tmp_path_factory.mktemp("hostile") / "run", NAMES, texts=HOSTILE)


def test_what_models_say_is_never_a_part_of_the_page(hostile: RunFolder, tmp_path: Path) -> None:
    page = Page(page_of(hostile))
    names = {f"task {i}": task for i, task in enumerate(NAMES.values())}
    plain = answered_run(tmp_path / "run", names, texts=["a", "b"])
    assert page.tags == Page(page_of(plain)).tags
    assert len(page.scripts) == 2
    assert page.references == ["report.html"], "a link, and nothing to load"
    assert not any(name.startswith("on") for _, names in page.tags for name in names)
    assert not re.search("innerHTML|outerHTML|insertAdjacent|document.write|eval", page.scripts[1])


def test_every_answer_is_there_as_text_and_what_has_no_glyph_is_spelled(hostile: RunFolder) -> None:
    text = page_of(hostile)
    content = data_of(text)
    answers = [row["answers"][0][0] for row in content["rows"]]
    assert answers[0] == HOSTILE[0]
    assert answers[4] == "⟨U+001B⟩[31mred⟨U+0007⟩⟨U+0000⟩⟨U+0008⟩⟨U+007F⟩⟨U+009B⟩31m"
    assert answers[5] == "⟨U+D800⟩ lone ⟨U+DFFF⟩"
    assert answers[6].startswith("⟨U+202E⟩right to left")
    assert answers[7:9] == list(HOSTILE[7:9])
    assert "hunter22" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text)


def test_the_page_lies_beside_the_report_which_leads_to_it(hostile: RunFolder) -> None:
    write_report(hostile)
    assert hostile.answers_page.read_text(encoding="utf-8") == page_of(hostile)
    assert 'href="answers.html"' in hostile.report.read_text(encoding="utf-8")


def test_a_run_without_answers_has_no_page(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_report(run)
    assert not run.answers_page.exists()


def test_the_page_stays_small_texts_lose_their_middle_then_questions_are_left_out_of_each_task(tmp_path: Path) -> None:
    tasks = {"small": Task((0.5, 0.5), num=4), "large": Task((0.5, 0.5), num=100)}
    run = answered_run(tmp_path / "run", tasks, texts=[f"begin{'x' * 5000}{i}end" for i in range(7)])
    whole = page_of(run)
    assert all(row["answers"][1][0].endswith("end") for row in data_of(whole)["rows"])
    assert "without their middle" not in whole
    shorter = page_of(run, budget_bytes=500_000)
    assert len(shorter.encode()) < 520_000
    assert "Texts of more than 2000 characters are shown without their middle" in shorter
    first = data_of(shorter)["rows"][0]["answers"][0][0]
    assert re.fullmatch(r"beginx+ ⋯ 3,009 characters are not shown ⋯ x+0end", first)
    fewer = page_of(run, budget_bytes=40_000)
    assert len(fewer.encode()) < 60_000
    rows = data_of(fewer)["rows"]
    assert {row["task"] for row in rows} == {"small", "large"}
    assert f"{len(rows)} of 104 questions are on this page" in fewer


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    tasks = {"squad": Task((0.9, 0.2), num=30), "rte": Task((0.2, 0.9), "choice", True, 30, ("yes", "no"))}
    run = answered_run(tmp_path_factory.mktemp("browser") / "run", tasks, (0, 1))
    write_report(run)
    return run


def seen(path: Path, shown: str, profile: Path) -> str:
    """What a real browser makes of the page, once its script has run."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=2000", "--dump-dom", f"{path.as_uri()}#{shown}"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return re.sub('<script type="application/json".*?</script>', "", done.stdout.decode(), flags=re.DOTALL)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")
def test_a_browser_shows_what_a_link_asks_for(answered: RunFolder, tmp_path: Path) -> None:
    content = data_of(answered.answers_page.read_text(encoding="utf-8"))
    lost = [
        row
        for row in content["rows"]
        if row["task"] == "squad" and row["shots"] == 0 and row["answers"][0][1] > row["answers"][1][1]
    ]
    link = "task=squad&shots=0&model=after+broad&against=base&result=lost"
    dom = seen(answered.answers_page, link, tmp_path)
    assert f">{len(lost)} of 120 questions<" in dom
    assert dom.count("<article") == min(20, len(lost))
    assert dom.count("✗ wrong") == dom.count("✓ right") == min(20, len(lost))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")
def test_a_browser_shows_what_people_and_the_judge_think_of_a_reference(answered: RunFolder, tmp_path: Path) -> None:
    asked = asked_in(answered, read_run(answered))
    marked = [MarkedAnswer("squad.jsonl/0", "squad", 4.0, 2.0, "3", "<b>short</b>")]
    path = tmp_path / "answers.html"
    path.write_text(render_answers(replace(asked, marked=marked)), encoding="utf-8")
    dom = seen(path, "task=squad&shots=0", tmp_path)
    assert dom.count("people gave this answer 4 · the judge gave 3 · &lt;b&gt;short&lt;/b&gt;") == 1
    assert dom.partition("<script>")[0].count("people gave") == 1, "of the marked answer alone"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")
def test_a_browser_runs_nothing_that_a_model_says(hostile: RunFolder, tmp_path: Path) -> None:
    write_report(hostile)
    dom = seen(hostile.answers_page, f"words={'document.title'}", tmp_path)
    assert "<img" not in dom
    assert "<title>run – answers</title>" in dom
    assert html.escape(HOSTILE[0], quote=False) in dom
    assert ">2 of 12 questions<" in dom
