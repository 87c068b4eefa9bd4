"""How far judging models agree with people: both grade the records' own answers.

    questions with a mark ──judge, who sees no mark──▶ MarkedAnswer, a line each ─▶ Agreement by task

Whoever reads a judge's grades of models can see here what they are worth. What a judge says is kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sft.atomic_files import write_lines
from sft.evaluation.judged_answers import expected_of
from sft.json_lines import json_line
from sft.progress import Tell
from sft.questions.question import Question
from sft.scoring import scorer
from sft.scoring.agreement import MOST_GRADES, Agreement, grade_agreement, rank_agreement
from sft.scoring.judging import Judging
from sft.scoring.model_judge import ModelJudge
from sft.scoring.registry import Score
from sft.scoring.scorer import Answer


@dataclass(frozen=True, slots=True)
class MarkedAnswer:
    """The record's own answer with what people and the judge think of it."""

    record: str
    task: str
    mark: str | float
    """Of people."""
    place: float | None
    """How far above the worst the judge's grade is; None without a grade."""
    grade: str
    """The same in the judge's words, or empty."""
    note: str
    """The judge's reason, or why there is no grade."""


@dataclass(frozen=True, slots=True)
class TaskAgreement:
    """Of the judge of a task."""

    task: str
    agreement: Agreement
    num_not_graded: int
    """Marked answers that the judge gave no grade."""
    num_unknown: int
    """Marks that are no grade: neither a number nor one of the labels."""


def has_marks(questions: Sequence[Question], scores: Mapping[str, Score]) -> bool:
    """Whether there is a judge, and people marked answers to what it judges."""
    return any(q.mark is not None and isinstance(scores[q.task].scorer, ModelJudge) for q in questions)


def grade_marked(
    questions: Sequence[Question], scores: Mapping[str, Score], files: tuple[Path, Path], tell: Tell
) -> list[MarkedAnswer]:
    """Have the judges grade the answers that people marked; each record once, however many shots it is asked with.

    Args:
        questions: those of a task together.
        scores: task → score; only those that are judges are asked.
        files: see `sft.run_folder.marks_of`.
        tell: called whenever there is progress.
    """
    path, replies = files
    marked: list[MarkedAnswer] = []
    for task, score in scores.items():
        if not isinstance(score.scorer, ModelJudge):
            continue
        by_record: dict[str, Question] = {}
        for question in questions:
            if question.task == task and question.mark is not None and question.references:
                by_record.setdefault(question.record, question)
        own = [*by_record.values()]
        given = [(Answer(question.references[0]), _without_own(question)) for question in own]
        with Judging(score) as judging:
            for question, verdict in zip(own, judging.judge_all(given, replies, tell), strict=True):
                share, grades = verdict.scores.get("judge"), score.scorer.grades
                place = None if verdict.failed or share is None else share * (len(grades) - 1)
                shown = "" if place is None else str(grades[round(place)])
                assert question.mark is not None
                marked.append(MarkedAnswer(question.record, task, question.mark, place, shown, verdict.note))
    if marked:
        write_lines(path, (json_line(asdict(one)) for one in marked))
    return marked


def _without_own(question: Question) -> scorer.Question:
    """As the judge sees it: an answer is no reference for itself."""
    return replace(expected_of(question), references=question.references[1:])


def agreements_of(marked: Sequence[MarkedAnswer], scores: Mapping[str, Score]) -> list[TaskAgreement]:
    """The agreement in each task."""
    found = []
    for task in dict.fromkeys(one.task for one in marked):
        judge = scores[task].scorer
        assert isinstance(judge, ModelJudge)
        own = [(one.place, place_of(one.mark, judge)) for one in marked if one.task == task]
        both = [(place, mark) for place, mark in own if place is not None and mark is not None]
        num_not_graded, num_unknown = (sum(pair[i] is None for pair in own) for i in (0, 1))
        found.append(TaskAgreement(task, _agreement(both, judge), num_not_graded, num_unknown))
    return found


def mark_text(mark: str | float) -> str:
    """A mark as people would write it."""
    return mark if isinstance(mark, str) else f"{mark:g}"


def place_of(mark: str | float, judge: ModelJudge) -> float | None:
    """How far above the judge's worst grade a mark is; it may lie off the scale. None if it is no grade."""
    if judge.labels:
        labels = [label.casefold() for label in judge.labels]
        named = mark_text(mark).casefold()
        return float(labels.index(named)) if named in labels else None
    try:
        place = float(mark) - judge.scale[0]
    except ValueError:
        return None
    return place if math.isfinite(place) else None


def _agreement(pairs: Sequence[tuple[float, float]], judge: ModelJudge) -> Agreement:
    grades, marks = [place for place, _ in pairs], [mark for _, mark in pairs]
    most = len(judge.grades) - 1
    is_same_scale = all(mark.is_integer() and 0 <= mark <= most for mark in marks)
    if judge.labels or (is_same_scale and most < MOST_GRADES):
        weighted = not judge.labels
        return grade_agreement([round(grade) for grade in grades], [round(mark) for mark in marks], weighted=weighted)
    return rank_agreement(grades, marks)
