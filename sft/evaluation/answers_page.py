"""All prompts of a run with each model's answer, the references and the verdicts, as one self-contained HTML page.

Invariant: the page loads nothing, and what models and data say stays text: it lies in the page as JSON in which no
markup can begin, the script only ever writes it as text, and the page's policy lets no other script run. The page stays
below 25 MB: long texts lose their middle, then questions are left out evenly from all tasks, and the page says so.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sft.answer_files import answers_of
from sft.atomic_files import write_text
from sft.errors import UserError
from sft.evaluation.agreement_table import agreement_sentences
from sft.evaluation.answer_scores import ModelScores
from sft.evaluation.judged_answers import JudgedAnswer, read_judged
from sft.evaluation.marks import MarkedAnswer, TaskAgreement, mark_text
from sft.evaluation.run_records import RunRecords
from sft.evaluation.score_rows import title_of
from sft.pages import page_environment, page_script
from sft.printable import fit_to_print
from sft.questions.question import QUESTIONS, Question, questions_in
from sft.run_folder import RunFolder

_BUDGET_BYTES = 24_000_000
_TEXT_LIMITS = (8000, 4000, 2000, 1000, 500)
_CHOSEN, _STOPPED, _CUT = 0, 1, 2

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AskedModels:
    """Models that answered the same questions."""

    name: str
    """Of the run, for the page's title."""
    answers: Mapping[str, Path]
    """Model → the file of its answers, in the order in which they are shown."""
    questions: Path
    """The published folder."""
    scores: Sequence[ModelScores]
    """Those of the answers."""
    marked: Sequence[MarkedAnswer] = ()
    """The records' own answers that people marked, with what the judge thinks of them."""
    agreements: Sequence[TaskAgreement] = ()
    """Of both."""


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What is on the page."""

    rows: Sequence[_Row]
    limit: int | None
    """Of the characters of each text, if there had to be one."""


def asked_in(run: RunFolder, records: RunRecords) -> AskedModels:
    """The first model of a run, and that of each stage at its end; without answers, none."""
    files = [file.path for file in run.all_evaluations() if file.num_steps is None]
    paths = {title_of(e): answers_of(path) for e, path in zip(records.evaluations, files, strict=False)}
    there = {title: path for title, path in paths.items() if path.is_file()}
    return AskedModels(records.name, there, run.questions, records.scores)


def write_answers(path: Path, asked: AskedModels, report: str = "") -> None:
    """Write the page to `path`; `report` is a page beside it.

    Raises:
        UserError: it cannot be written.
    """
    page = render_answers(asked, report)
    try:
        write_text(path, page)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Make room or correct the rights.") from error


def render_answers(asked: AskedModels, report: str = "", budget_bytes: int = _BUDGET_BYTES) -> str:
    """The page as text."""
    rows = _rows(asked)
    fitted = _fit(rows, budget_bytes)
    is_share = {task: score.is_share for scores in asked.scores for (task, _), score in scores.tasks.items()}
    data = {
        "models": [*asked.answers],
        "graded": sorted(fit_to_print(task) for task, is_graded in is_share.items() if is_graded),
        "rows": fitted.rows,
    }
    environment = page_environment("sft.evaluation")
    tasks = Counter(row["task"] for row in fitted.rows)
    return environment.get_template("answers_page.html.j2").render(
        title=asked.name,
        script=page_script(environment, "answers_script.j2"),
        data=_as_json(data),
        models=data["models"],
        tasks=sorted(tasks.items()),
        shots=sorted({row["shots"] for row in fitted.rows}),
        num_all=len(rows),
        num_shown=len(fitted.rows),
        limit=fitted.limit,
        agreements=[*agreement_sentences(asked.agreements)],
        report=report,
    )


def _rows(asked: AskedModels) -> list[_Row]:
    """A row for each question that a model answered, those of a task together."""
    paths, questions = [*asked.answers.values()], asked.questions
    marked = {
        one.record: [fit_to_print(part) for part in (mark_text(one.mark), one.grade, one.note)] for one in asked.marked
    }
    unseen = {task: score.unseen for scores in asked.scores for (task, _), score in scores.tasks.items()}
    answers: dict[str, list[Any]] = {}
    rows: dict[str, _Row] = {}
    for i, path in enumerate(paths):
        for one in read_judged(path):
            answers.setdefault(one.key, [None] * len(paths))[i] = _answer(one)
            if one.key not in rows:
                rows[one.key] = {**_row(one, unseen.get(one.task, one.unseen)), "marked": marked.get(one.record)}
    for question in questions_in(questions) if (questions / QUESTIONS).is_file() else ():
        if question.key in rows:
            rows[question.key] |= _asked(question)
    return [{**row, "answers": answers[key]} for key, row in rows.items()]


def _row(one: JudgedAnswer, unseen: bool) -> _Row:
    return {
        "task": fit_to_print(one.task),
        "unseen": unseen,
        "shots": one.shots,
        "shown": one.num_shown,
        "score": fit_to_print(one.score_name),
        "where": fit_to_print(one.record),
        "prompt": "",
        "references": [],
        "options": [],
    }


def _asked(question: Question) -> _Row:
    return {
        "where": fit_to_print(question.where),
        "prompt": fit_to_print(question.prompt),
        "references": [fit_to_print(text) for text in question.references],
        "options": [fit_to_print(text) for text in question.options],
    }


def _answer(one: JudgedAnswer) -> list[Any]:
    """Text, score, note, how it ended, number of tokens."""
    end = _CHOSEN if one.answer.likelihoods else _STOPPED if one.answer.stopped else _CUT
    # JSON knows no NaN, and a number of the user's own needs no 17 digits.
    score = None if one.score is None else round(one.score, 4)
    return [fit_to_print(one.answer.text), score, fit_to_print(one.note), end, one.answer.num_tokens]


def _fit(rows: Sequence[_Row], budget_bytes: int) -> _Fitted:
    for limit in (None, *_TEXT_LIMITS):
        fitted = [row if limit is None else _shortened(row, limit) for row in rows]
        sizes = [_size(row) for row in fitted]
        if sum(sizes) <= budget_bytes:
            return _Fitted(fitted, limit)
    return _Fitted([*_evenly(fitted, sizes, budget_bytes / sum(sizes))], limit)


def _evenly(rows: Sequence[_Row], sizes: Sequence[int], share: float) -> Iterator[_Row]:
    """The first questions of each task and number of shots, by their bytes; at least one of each."""
    groups = [(row["task"], row["shots"]) for row in rows]
    room: Counter[tuple[str, int]] = Counter()
    for group, size in zip(groups, sizes, strict=True):
        room[group] += size
    taken: Counter[tuple[str, int]] = Counter()
    for row, group, size in zip(rows, groups, sizes, strict=True):
        if not taken[group] or taken[group] + size <= share * room[group]:
            taken[group] += size
            yield row


def _shortened(row: _Row, limit: int) -> _Row:
    return {
        **row,
        "prompt": _cut(row["prompt"], limit),
        "references": _cut_all(row["references"], limit),
        "options": _cut_all(row["options"], limit),
        "answers": [one and [_cut(one[0], limit), one[1], _cut(one[2], limit), *one[3:]] for one in row["answers"]],
    }


def _cut_all(texts: Sequence[str], limit: int) -> list[str]:
    kept = [_cut(text, limit) for text in texts[:20]]
    return kept if len(texts) <= 20 else [*kept, f"⋯ {len(texts) - 20:,} more are not shown ⋯"]


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} ⋯ {len(text) - 2 * half:,} characters are not shown ⋯ {text[-half:]}"


def _size(row: Mapping[str, Any]) -> int:
    return len(_as_json(row).encode())


def _as_json(content: Any) -> Markup:
    """JSON in which no tag and no comment can begin."""
    return Markup(json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
