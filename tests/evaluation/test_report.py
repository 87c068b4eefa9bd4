"""The report says what the run folder holds (whole, under way, restarted, empty), as nothing but text."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from sft.errors import UserError
from sft.evaluation.plots import memory_plot
from sft.evaluation.report import render_report, write_report
from sft.evaluation.run_records import read_run
from sft.evaluation.tables import MAX_TASKS, mixture_table, score_table, short_count
from sft.ledger import LedgerEntry, LedgerWriter
from sft.run_folder import RunFolder

INJECTION = '</pre><script src="https://example.org/x.js">alert(1)</script><img src=x onerror=alert(1)>'
TASKS = ("qa", "summaries", "a$b$c", "<i>tags</i> & 数学")


def step_line(step: int, *, num_steps: int = 6, attempt: int = 1, loss: float = 2.0) -> dict[str, Any]:
    line = {"stage": "broad", "step": step, "num_steps": num_steps, "attempt": attempt, "time": 1.7e9 + step}
    line |= {"loss": loss, "grad_norm": 0.8, "lr": 1e-5, "num_supervised_tokens": 100, "num_tokens": 400}
    line |= {"seconds": 0.5, "checkpoint_stall_seconds": 0.0, "input_wait_seconds": 0.004, "peak_memory_gib": 1.2}
    return line | {"unknown": 1}


BROAD = [step_line(step, loss=9.0) for step in range(5)] + [step_line(step, attempt=2) for step in range(3, 6)]


def write_metrics(run: RunFolder, index: int, name: str, lines: list[dict[str, Any]], tail: str = "") -> None:
    path = run.stage(index, name).metrics
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail, encoding="utf-8")


def write_plan(run: RunFolder, index: int, name: str, tasks: tuple[str, ...] = TASKS) -> None:
    share = 1 / len(tasks)
    row: dict[str, Any] = {
        "num_examples_before": 30,
        "num_supervised_tokens_before": 3000,
        "share_before": share,
    }
    row |= {"num_examples": 60, "num_supervised_tokens": 6000, "share_target": share, "share": share}
    row |= {"epochs": 2.0, "num_tokens_repeated": 3000, "coverage": 1.0}
    plan: dict[str, Any] = {
        "mixture": [{"task": task, **row} for task in tasks],
        "unit": "supervised_tokens",
        "files": {},
    }
    plan |= {"num_packs": 24, "num_steps": 6, "fill": 0.97, "num_tokens": 2400, "num_supervised_tokens": 600}
    path = run.stage(index, name).packs / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan), encoding="utf-8")


def write_evaluation(run: RunFolder, file: str, name: str, losses: dict[str, float], unseen: str = "") -> None:
    rest = {"num_supervised_tokens": 1000, "num_examples": 20}
    tasks = {task: {"loss": loss, "unseen": task == unseen, **rest} for task, loss in losses.items()}
    content = {"name": name, "tasks": tasks, "loss": math.fsum(losses.values()) / len(losses)}
    run.evaluations.mkdir(parents=True, exist_ok=True)
    (run.evaluations / file).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One whose page is shared, since to draw it takes a second; a line of its second stage is broken."""
    run = make_run(tmp_path_factory.mktemp("drawn") / "run")
    break_line(run)
    write_metrics(run, 0, "broad", [line | {"peak_resident_gib": 1.2} for line in BROAD])
    return run


@pytest.fixture(scope="module")
def html(drawn: RunFolder) -> str:
    return render_report(drawn)


def break_line(run: RunFolder) -> None:
    path = run.stage(1, "narrow").metrics
    path.write_text('{"stage": "nar\n' + path.read_text(encoding="utf-8"), encoding="utf-8")


def make_run(path: Path) -> RunFolder:
    """Three stages: one restarted, one not evaluated, one under way."""
    run = RunFolder(path)
    run.path.mkdir()
    run.config.write_text(
        "run: {name: three-stages}\nmodel: {path: org/model-1b}\nstages: [{}, {}, {}]\n", encoding="utf-8"
    )
    run.manifest.write_text(json.dumps({"versions": {"torch": "2.8.0"}}), encoding="utf-8")
    write_metrics(run, 0, "broad", BROAD)
    write_metrics(run, 1, "narrow", [step_line(step, attempt=2) for step in range(6)])
    write_metrics(run, 2, "final", [step_line(step, attempt=3) for step in range(2)], tail='{"stage": "final", "st')
    fed = {"broad": [(1, range(5)), (2, range(3, 6))], "narrow": [(2, range(6))], "final": [(3, range(2))]}
    for index, (name, began) in enumerate(fed.items()):
        write_plan(run, index, name)
        for attempt, steps in began:
            ledger = LedgerWriter(run.stage(index, name).ledger, attempt)
            ledger.resume(steps[0])
            for step in steps:
                ledger.append(LedgerEntry(step, attempt, 1, (step,), 0, True))
    for attempt in (1, 2, 3):
        run.attempt(attempt).path.mkdir(parents=True)
    write_evaluation(run, "base.json", "base", dict.fromkeys(TASKS, 4.0), unseen="qa")
    write_evaluation(run, "0-broad.json", "broad", dict.fromkeys(TASKS, 3.0), unseen="qa")
    write_evaluation(run, "0-broad-step-00000003.json", "broad", dict.fromkeys(TASKS, 3.5), unseen="qa")
    write_evaluation(run, "2-final.json", "final", dict.fromkeys(TASKS, 2.0), unseen="qa")
    answer = {"task": "qa", "prompt": INJECTION, "reference": "r", "before": INJECTION, "after": None}
    run.sample_answers.write_text(json.dumps([answer]), encoding="utf-8")
    return run


class Page(HTMLParser):
    """What a browser would make of the page: its tags, its text, and where it would load from."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def shown(table: Table) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_step_is_what_the_last_attempt_made_of_it(run: RunFolder) -> None:
    records = read_run(run)
    broad = records.stages[0]
    assert [step.step for step in broad.steps] == list(range(6))
    assert [step.attempt for step in broad.steps] == [1, 1, 1, 2, 2, 2]
    assert [step.loss for step in broad.steps] == [9.0, 9.0, 9.0, 2.0, 2.0, 2.0]
    assert [stage.restarts for stage in records.stages] == [(3,), (), (0,)]
    assert records.num_restarts == 2
    assert (broad.num_done, broad.num_rolled_back) == (6, 2)


def test_steps_that_are_rolled_back_and_not_trained_again_yet_do_not_count(run: RunFolder) -> None:
    write_metrics(run, 2, "final", [*(step_line(s) for s in range(5)), step_line(1, attempt=3)])
    assert [step.step for step in read_run(run).stages[2].steps] == [0, 1]


def test_an_unfinished_last_line_is_ignored(run: RunFolder) -> None:
    final = read_run(run).stages[2]
    assert [step.step for step in final.steps] == [0, 1]
    assert final.num_unreadable_lines == 0


def test_a_broken_line_before_the_last_is_left_out_and_said(run: RunFolder, html: str) -> None:
    break_line(run)
    assert len(read_run(run).stages[1].steps) == 6
    assert "1 unreadable lines of the metrics of stage narrow" in html


def test_stages_and_evaluations_are_in_the_order_of_training(run: RunFolder) -> None:
    write_metrics(run, 10, "last", [step_line(0)])
    records = read_run(run)
    assert [stage.index for stage in records.stages] == [0, 1, 2, 10]
    assert [e.name for e in records.evaluations] == ["base", "broad", "final"]
    assert [(e.stage_index, e.step) for e in records.mid_stage] == [(0, 3)]


def test_data_is_only_ever_text(html: str) -> None:
    page = Page(html)
    assert not {"script", "img", "iframe", "i"} & set(page.tags)
    assert page.handlers == []
    assert page.texts.count(INJECTION) == 2


def test_the_page_loads_nothing(html: str) -> None:
    page = Page(html)
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)
    assert "link" not in page.tags
    assert not re.search(r"@import|url\((?!#)", html)


def test_ids_are_unique_and_all_that_is_referred_to_is_there(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    referred = {reference[1:] for reference in page.references} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert referred <= set(page.ids)


def test_the_page_shows_every_task_and_stage(html: str) -> None:
    texts = Page(html).texts
    for task in TASKS:
        # The held-out table and its plot, and for each of the three stages the mixture's table and plot.
        assert texts.count(task) >= 8
    for name in ("broad", "narrow", "final"):
        assert f"Stage {name}" in texts


def test_headline_facts(html: str) -> None:
    assert "<dt>model</dt><dd>org/model-1b</dd>" in html
    assert "<dt>steps</dt><dd>14<small>of 18 planned so far</small></dd>" in html
    assert "<dt>held-out loss</dt><dd>4.000 → 2.000<small>−50.0%, all tasks</small></dd>" in html
    assert "<dt>supervised tokens/s</dt><dd>200<small>median; 800 with the prompts</small></dd>" in html
    assert "<dt>restarts</dt><dd>2<small>2 steps rolled back</small></dd>" in html
    assert html.count("<td>0.8%</td>") == 3, "of each stage's time, what was waited for data"


def test_an_empty_run_folder_says_what_is_missing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    html = render_report(run)
    assert "No step was trained yet." in html
    assert "Nothing was measured on held-out data yet." in html
    assert "No stage was planned yet." in html
    assert "<svg" not in html
    write_plan(run, 0, "broad")
    assert "not started" in render_report(run)


def test_a_missing_base_leaves_the_change_open(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for file, name in (("0-broad.json", "broad"), ("1-narrow.json", "narrow")):
        write_evaluation(run, file, name, dict.fromkeys(TASKS, 3.0), unseen="qa")
    assert "base not measured" in render_report(run)
    assert "%" not in shown(score_table(read_run(run).evaluations, "loss"))


def test_numbers_that_are_none_are_shown_as_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    diverged = {"loss": math.nan, "grad_norm": math.inf, "peak_memory_gib": None}
    write_metrics(run, 0, "broad", [{**step_line(step), **diverged} for step in range(40)])
    write_evaluation(run, "base.json", "base", {"qa": math.nan})
    assert "<td>–</td>" in render_report(run)


def test_a_long_run_stays_a_small_page(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_metrics(run, 0, "broad", [step_line(step, num_steps=10_000, loss=step % 7) for step in range(10_000)])
    assert len(render_report(run)) < 1_000_000


def test_the_page_is_written_into_the_run_folder_and_the_same_each_time(drawn: RunFolder, html: str) -> None:
    path = write_report(drawn)
    assert path == drawn.report
    assert path.read_text(encoding="utf-8") == html


def test_damaged_and_missing_folders_are_the_users_to_mend(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        render_report(RunFolder(tmp_path / "elsewhere"))
    run.manifest.write_text('{"versions": ', encoding="utf-8")
    with pytest.raises(UserError, match="not JSON"):
        render_report(run)


def test_console_tables_show_every_task_and_fit(run: RunFolder) -> None:
    records = read_run(run)
    plan = records.stages[0].plan
    assert plan is not None
    for text in (shown(score_table(records.evaluations, "loss")), shown(mixture_table("broad", plan.mixture))):
        assert all(task in text for task in TASKS)
        assert text.rstrip().splitlines()[-1].split()[0] == "all"
    heldout = shown(score_table(records.evaluations, "loss"))
    assert re.search(r"qa +unseen +4\.0000 +3\.0000 +2\.0000 +−50\.0%", heldout)


def test_console_tables_of_many_tasks_show_the_largest_and_count_the_rest(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    tasks = tuple(f"task_{place:02d}_with_a_name_that_is_rather_long" for place in range(MAX_TASKS + 4))
    for file, name in (("base.json", "base"), ("0-broad.json", "broad"), ("2-final.json", "final")):
        write_evaluation(run, file, name, dict.fromkeys(tasks, 2.0))
    write_plan(run, 0, "broad", tasks)
    records = read_run(run)
    plan = records.stages[0].plan
    assert plan is not None
    for table in (score_table(records.evaluations, "loss"), mixture_table("broad", plan.mixture)):
        assert table.row_count == MAX_TASKS + 1
        text = shown(table)
        assert "4 more are in the report" in text
        assert "task_29" in text
        assert "task_30" not in text
    assert set(tasks) <= set(Page(render_report(run)).texts)


def test_a_console_table_of_many_stages_fits(run: RunFolder) -> None:
    for index in range(9):
        write_evaluation(run, f"{index}-stage-{index}.json", f"stage-{index}", {"qa": 3.0 - index / 9})
    text = shown(score_table(read_run(run).evaluations, "loss"))
    assert "stage-8" in text
    assert "evaluations in between" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("count", "text"),
    [(9999, "9,999"), (10_000, "10.0k"), (999_999, "1000k"), (12_345_678, "12.3M"), (4e9, "4.00B")],
)
def test_short_counts(count: int, text: str) -> None:
    assert short_count(count) == text


def with_memory(steps: int, **peaks: float | None) -> list[dict[str, Any]]:
    return [
        step_line(step) | {name: peak and peak + step / 10 for name, peak in peaks.items()} for step in range(steps)
    ]


def test_the_memory_of_each_stage_is_drawn_as_it_was_recorded(tmp_path: Path, html: str) -> None:
    shown = {}
    for kind, peaks in {
        "old": {},
        "cpu": {"peak_resident_gib": 1.2, "peak_reserved_gib": None},
        "gpu": {"peak_resident_gib": 5.1, "peak_reserved_gib": 14.5, "peak_memory_gib": 12.5},
    }.items():
        run = RunFolder(tmp_path / kind)
        for index, name in enumerate(("broad", "narrow")):
            write_metrics(run, index, name, with_memory(40, **peaks))
        text = memory_plot(read_run(run))
        labels = ("resident in the process", "allocated on the GPU", "reserved on the GPU")
        shown[kind] = [label for label in labels if text.count(f">{label}<") == 1], bool(text)
    assert shown == {
        "old": ([], False),
        "cpu": (["resident in the process"], True),
        "gpu": (["resident in the process", "allocated on the GPU", "reserved on the GPU"], True),
    }
    assert Page(html).texts.count("resident in the process") == 1
