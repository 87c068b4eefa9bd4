"""Answers with the verdicts on them: how they are judged, kept in a file, and added up by task.

A metric of answers with shots has their number in its name: `exact_match` without any, `exact_match@3` with three.
Beside the metrics of its own score, a task has `score`, the first of them, so that tasks can be averaged. A score on a
scale of its own, such as a length, is not among them.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from sft.answering.answer import Answer, most_likely, read_answer
from sft.atomic_files import write_lines
from sft.config_evaluation import EvaluateConfig
from sft.evaluation.scores import SCORE, Sums
from sft.json_lines import from_json, json_line, whole_lines
from sft.progress import Tell
from sft.questions.question import Question, Way
from sft.schema import ToolCall
from sft.scoring import scorer
from sft.scoring.default_score import default_score
from sft.scoring.judging import Judging
from sft.scoring.length import Length
from sft.scoring.metric import Metric
from sft.scoring.own_function import OwnFunction, own_metric
from sft.scoring.registry import Score, check_packages, read_score
from sft.scoring.scorer import ANSWERED, JUDGED
from sft.thoughts import Said, answer_in

_SCORE = Metric("score", "score of an answer", "higher", JUDGED, is_share=True)
FAILED = "num_not_judged"


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """A line of the file of answers."""

    record: str
    shots: int
    num_shown: int
    task: str
    unseen: bool
    score_name: str
    """What it was scored by."""
    score: float | None
    """The first of its scores; None where there is no verdict."""
    scores: Mapping[str, float]
    note: str
    """A short reason for people."""
    answer: Answer

    @property
    def key(self) -> str:
        """That of the question."""
        return self.answer.key

    def as_json(self) -> dict[str, Any]:
        """The content of its line."""
        return asdict(self)


def read_judged(path: Path) -> Iterator[JudgedAnswer]:
    """The lines of a file of answers."""
    for line in whole_lines(path):
        content = json.loads(line)
        yield from_json(JudgedAnswer, {**content, "answer": read_answer(content["answer"])})


def scores_in(path: Path, score: str, tasks: Collection[str]) -> dict[str, dict[str, float]]:
    """Task → the key of each question → a score of its answer; nothing if it is not a score of answers.

    Args:
        path: a file of answers.
        score: the metric, such as `exact_match@3`.
        tasks: whose answers count.
    """
    name, _, shots = score.partition("@")
    found: dict[str, dict[str, float]] = {}
    for one in read_judged(path):
        value = one.score if name == SCORE else one.scores.get(name)
        if one.task in tasks and one.shots == int(shots or 0) and value is not None:
            found.setdefault(one.task, {})[one.key] = value
    return found


def write_judged(path: Path, judged: Iterable[JudgedAnswer]) -> None:
    """Write the file of answers, as a whole."""
    write_lines(path, (json_line(one.as_json()) for one in judged))


def scores_of(questions: Sequence[Question], evaluate: EvaluateConfig) -> dict[str, Score]:
    """Task → what its answers are scored by: as the config says, or by the kind of its references.

    Raises:
        UserError: a score is unknown or wrong, or its package is not installed; all of them at once.
    """
    by_task: dict[str, list[Question]] = {}
    for question in questions:
        by_task.setdefault(question.task, []).append(question)
    scores = {}
    for task, own in by_task.items():
        asked = evaluate.tasks.get(task)
        form = asked.score if asked and asked.score is not None else None
        expected = [expected_of(question) for question in own]
        scores[task] = read_score(default_score(expected, evaluate.allow_code).name if form is None else form)
    check_packages(*scores.values())
    return scores


def check_scores(questions: Sequence[Question], evaluate: EvaluateConfig) -> dict[str, Score]:
    """As `scores_of`, after trying that each can judge here, so that nobody finds out at the end of a stage.

    Raises:
        UserError: as `scores_of`, or a function of the user's cannot be imported, or code may not or cannot be run.
    """
    scores = scores_of(questions, evaluate)
    for score in {_form_of(score): score for score in scores.values()}.values():
        with Judging(score, allow_code=evaluate.allow_code) as judging:
            judging.check()
    return scores


def metrics_of_scores(scores: Mapping[str, Score], shots: Iterable[int]) -> dict[str, Metric]:
    """All metrics of answers, by name."""
    own: dict[str, Metric] = {SCORE: _SCORE} if any(score.is_share for score in scores.values()) else {}
    own |= Length.metrics
    for score in scores.values():
        own |= score.scorer.metrics
    own |= {name: metric for name, metric in _CHOICE.items() if any(s.name == "choice" for s in scores.values())}
    return {
        _with_shots(name, number): _metric_with_shots(metric, number)
        for number in sorted(set(shots))
        for name, metric in own.items()
    }


def _metric_with_shots(metric: Metric, shots: int) -> Metric:
    if not shots:
        return metric
    shown = f"{shots} example{'s' if shots > 1 else ''}"
    over = _with_shots(metric.over, shots)
    return replace(metric, title=f"{metric.title}, {shown}", text=f"{metric.text} with {shown} shown", over=over)


_CHOICE: Mapping[str, Metric] = {
    "accuracy_by_token": Metric(
        "by token", "right options by likelihood a token", "higher", "num_chosen", is_share=True
    ),
    "accuracy_by_byte": Metric("by byte", "right options by likelihood a byte", "higher", "num_chosen", is_share=True),
}
"""The other two ways to compare the likelihoods of options of different lengths."""


def judge(
    questions: Sequence[Question],
    answers: Mapping[str, Answer],
    scores: Mapping[str, Score],
    allow_code: bool,
    tell: Tell,
    replies: Path | None = None,
) -> Iterator[JudgedAnswer]:
    """The answers with verdicts, in the order of the questions; those without an answer are left out.

    Args:
        questions: those of a task together.
        answers: by the key of their question.
        scores: task → score.
        allow_code: whether code may be run.
        tell: called whenever there is progress.
        replies: the file of what a judging model says.

    Raises:
        UserError: a score cannot judge here.
    """
    opened: dict[str, Judging] = {}
    with ExitStack() as held:
        for task, group in groupby((q for q in questions if q.key in answers), key=lambda question: question.task):
            own, score = [*group], scores[task]
            # A process that judges may import for seconds: tasks with one score share it.
            if (form := _form_of(score)) not in opened:
                opened[form] = held.enter_context(Judging(score, allow_code=allow_code))
            given = [(_given(answers[question.key], score), expected_of(question)) for question in own]
            for question, verdict in zip(own, opened[form].judge_all(given, replies, tell), strict=True):
                yield _judged(question, answers[question.key], score, verdict)
            if verdict.failed:  # it may have given up, which is no reason to give up in the next task
                opened.pop(form).close()


def _form_of(score: Score) -> str:
    """The same for scores that judge alike."""
    return json.dumps(score.form, sort_keys=True)


def _given(answer: Answer, score: Score) -> scorer.Answer:
    """The answer as scorers see it."""
    return scorer.Answer(_said(answer, score).answer.strip(), answer.num_tokens, answer.stopped)


def _said(answer: Answer, score: Score) -> Said:
    """What stands behind the thought, which is not what was asked for."""
    if answer.likelihoods:
        return Said(answer.text)  # an option, as it is
    # Calls that a server has read stand behind the text.
    has_more = score.name == "tool_call" and answer.raw.startswith(answer.text)
    return answer_in(answer.raw if has_more else answer.text)


def _judged(question: Question, answer: Answer, score: Score, verdict: scorer.Verdict) -> JudgedAnswer:
    numbers = dict(verdict.scores)
    if answer.likelihoods and not verdict.failed:
        numbers |= _other_choices(question, answer)
    first = next(iter(verdict.scores.values()), None)
    return JudgedAnswer(
        record=question.record,
        shots=question.shots,
        num_shown=question.num_shown,
        task=question.task,
        unseen=question.unseen,
        score_name=score.name,
        score=None if verdict.failed else first,
        scores=numbers,
        note=": ".join(filter(None, (_said(answer, score).why_empty, verdict.note))),
        answer=answer,
    )


def _other_choices(question: Question, answer: Answer) -> dict[str, float]:
    def right(lengths: Sequence[int]) -> float:
        values = [value / length for value, length in zip(answer.likelihoods, lengths, strict=True)]
        likeliest = most_likely(values)
        return float(likeliest is not None and question.options[likeliest] in question.references)

    by_byte = [max(1, len(option.encode())) for option in question.options]
    return {"accuracy_by_token": right(answer.option_lengths), "accuracy_by_byte": right(by_byte)}


def metrics_of_task(score: Score, questions: Iterable[Question]) -> dict[str, Metric]:
    """The metrics of the answers to these questions, all of one task, by name: as many as the ways to answer give."""
    ways: dict[int, set[Way]] = {}
    for question in questions:
        ways.setdefault(question.shots, set()).add(question.way)
    found: dict[str, Metric] = {}
    for shots, own in ways.items():
        never = {_with_shots(name, shots) for name in _never_measured(score, own)}
        metrics = metrics_of_scores({"": score}, [shots])
        found |= {name: metric for name, metric in metrics.items() if name not in never}
    return found


def _never_measured(score: Score, ways: Collection[Way]) -> Collection[str]:
    """A choice has no length, and what is written no likelihoods. Those of `length` itself are always there."""
    if "choice" not in ways:
        return _CHOICE
    return () if "generate" in ways or score.name == "length" else Length.metrics


def metrics_of_others(scores: Mapping[str, Score], sums: Sums) -> dict[str, Metric]:
    """Metrics of the numbers that functions of the user's return beside their scores: their names are known only now.

    A function may return one for some answers only, so each is a mean over a count of its own.
    """
    own = [numbers for task, numbers in sums.items() if isinstance(scores[task].scorer, OwnFunction)]
    counts = {count for numbers in own for count in numbers if count.startswith(_JUDGED_OTHER)}
    found = {}
    for count in sorted(counts):
        name = count.removeprefix(_JUDGED_OTHER)
        title, _, shots = name.partition("@")
        found[name] = _metric_with_shots(own_metric(title, _JUDGED_OTHER + title), int(shots or 0))
    return found


_JUDGED_OTHER = f"{JUDGED}_"
"""Begins the names of these counts."""


def sums_of(
    judged: Iterable[JudgedAnswer], scores: Mapping[str, Score], num_asked: Mapping[tuple[str, int], int]
) -> Sums:
    """Task → the sum of each metric, and the counts, as `sft.evaluation.scores.Sums`.

    Args:
        judged: the answers.
        scores: task → what its answers were scored by.
        num_asked: (task, shots) → how many questions there are; those without an answer are counted.
    """
    sums: dict[str, dict[str, float]] = {}

    def add(task: str, shots: int, name: str, value: float) -> None:
        own = sums.setdefault(task, {})
        own[_with_shots(name, shots)] = own.get(_with_shots(name, shots), 0.0) + value

    for one in judged:
        numbers = {**one.scores, ANSWERED: 1}
        if one.answer.likelihoods:
            numbers["num_chosen"] = 1
        else:
            numbers |= {"answer_tokens": one.answer.num_tokens, "stopped": float(one.answer.stopped)}
        numbers |= {FAILED: 1} if one.score is None else {JUDGED: 1}
        if one.score is not None and scores[one.task].is_share:
            numbers[SCORE] = one.score
        if isinstance(scores[one.task].scorer, OwnFunction):
            own = scores[one.task].scorer.metrics
            numbers |= {_JUDGED_OTHER + name: 1 for name in one.scores if name not in own}
        for name, value in numbers.items():
            add(one.task, one.shots, name, value)
    for (task, shots), count in num_asked.items():
        num_answered = sums.get(task, {}).get(_with_shots(ANSWERED, shots), 0)
        if count > num_answered:
            add(task, shots, "num_not_answered", count - num_answered)
    return sums


def _with_shots(name: str, shots: int) -> str:
    return f"{name}@{shots}" if shots else name


def expected_of(question: Question) -> scorer.Question:
    """The question as scorers see it: what was asked hides fields of the record that have the same names."""
    calls = tuple(ToolCall(call["name"], call["arguments"]) for call in question.tool_calls)
    about: dict[str, Any] = {
        **question.fields,
        "task": question.task,
        "source": question.source,
        "where": question.where,
        "prompt": question.prompt,
    }
    about["messages"] = [*question.messages]
    if question.tools:
        about["tools"] = [*question.tools]
    return scorer.Question(question.references, question.options, question.tests, question.setup_code, calls, about)
