"""Run folders with answers as an evaluation writes them, without a model: tasks, shots, stages and verdicts at will."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sft.answer_files import answers_of
from sft.answering.answer import Answer
from sft.atomic_files import publish_folder, write_lines, written_aside
from sft.evaluation.judged_answers import JudgedAnswer, metrics_of_scores, sums_of, write_judged
from sft.evaluation.scores import LOSS, Sums, evaluate
from sft.json_lines import json_line
from sft.questions.question import QUESTIONS, Question
from sft.run_folder import RunFolder
from sft.scoring.metric import Metric
from sft.scoring.registry import read_score


class Task(NamedTuple):
    """A task, and how often each model is right: the first, then after each stage."""

    rights: Sequence[float]
    score: str = "exact_match"
    unseen: bool = False
    num: int = 40
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Asked:
    tasks: Mapping[str, Task]
    texts: Sequence[str]
    questions: Sequence[Question]


@dataclass(frozen=True)
class _Given:
    metrics: Mapping[str, Metric]
    sums: Sums

    def measure(self) -> Sums:
        return self.sums


def answered_run(
    path: Path,
    tasks: Mapping[str, Task],
    shots: Sequence[int] = (0,),
    stages: Sequence[str] = ("broad",),
    clusters: Mapping[str, Sequence[str]] | None = None,
    within: Mapping[str, Sequence[int]] | None = None,
    texts: Sequence[str] = (),
) -> RunFolder:
    """A run whose models answered the questions of the tasks.

    Args:
        path: its folder.
        tasks: by name.
        shots: each question is asked with each of these numbers.
        stages: after each of them there is an evaluation.
        clusters: those of the config.
        within: stage → the steps after which it was evaluated, too.
        texts: what models answer, in turns; by default something plain.
    """
    run, asked = RunFolder(path), _Asked(tasks, texts, _questions(tasks, shots))
    run.evaluations.mkdir(parents=True)
    content = {"run": {"name": path.name}, "model": {"path": "org/model"}, "data": {"clusters": clusters or {}}}
    run.config.write_text(json.dumps({**content, "stages": [{} for _ in stages]}), encoding="utf-8")
    with written_aside(run.questions, "publish") as aside:
        write_lines(aside / QUESTIONS, (json_line(question.as_json()) for question in asked.questions))
        publish_folder(aside, run.questions, {"kind": "questions"})
    _measure(run, run.evaluation(), "base", 0.0, asked)
    for i, stage in enumerate(stages):
        folder = run.stage(i, stage)
        steps = [*(within or {}).get(stage, ())]
        for number, step in enumerate(steps, 1):
            at = i + number / (len(steps) + 1)
            _measure(run, run.evaluation(folder, step), stage, at, asked, step)
        _measure(run, run.evaluation(folder), stage, i + 1.0, asked)
    return run


def _questions(tasks: Mapping[str, Task], shots: Sequence[int]) -> list[Question]:
    return [question for name, task in tasks.items() for question in _of_task(name, task, shots)]


def _of_task(name: str, task: Task, shots: Sequence[int]) -> list[Question]:
    rng = np.random.default_rng(len(name))
    found = []
    for i in range(task.num):
        a, b = rng.integers(2, 99, 2)
        right = task.options[i % len(task.options)] if task.options else str(a + b)
        for number in shots:
            shown = "".join(f"What is {j} and {j} in {name}?\n{2 * j}\n\n" for j in range(number))
            text = f"{shown}What is {a} and {b} in {name}?\n"
            found.append(
                Question(
                    record=f"{name}.jsonl/{i}",
                    shots=number,
                    num_shown=number,
                    task=name,
                    source="all",
                    where=f"{name}.jsonl:{i + 1}",
                    unseen=task.unseen,
                    way="choice" if task.options else "generate",
                    messages=(),
                    tools=(),
                    prompt=text,
                    prompt_ids=(1, 2, 3),
                    max_new_tokens=16,
                    references=(right,),
                    options=task.options,
                )
            )
    return found


def _measure(run: RunFolder, path: Path, name: str, at: float, asked: _Asked, step: int | None = None) -> None:
    tasks, texts, questions = asked.tasks, asked.texts, asked.questions
    judged = [_judged(i, question, tasks[question.task], at, texts) for i, question in enumerate(questions)]
    write_judged(answers_of(path), judged)
    scores = {task: read_score(about.score) for task, about in tasks.items()}
    answers = _Given(
        metrics_of_scores(scores, {question.shots for question in questions}),
        sums_of(judged, scores, Counter((question.task, question.shots) for question in questions)),
    )
    losses = _Given(
        {"loss": LOSS},
        {
            t: {"loss": 100.0 * (3 - at / 2), "num_supervised_tokens": 100, "num_examples": about.num}
            for t, about in tasks.items()
        },
    )
    unseen = [task for task, about in tasks.items() if about.unseen]
    evaluation = evaluate([losses, answers], name, unseen, step=step)
    path.write_text(json.dumps(evaluation.as_json()), encoding="utf-8")


def _judged(number: int, question: Question, task: Task, at: float, texts: Sequence[str]) -> JudgedAnswer:
    """A question is as hard for each model: it is right where it is better than that."""
    hard = np.random.default_rng(number).random()
    ability = float(np.interp(at, range(len(task.rights)), task.rights)) + 0.04 * question.shots
    is_right = hard < ability
    wrong = next((option for option in task.options if option not in question.references), f"{number} or so")
    text = texts[number % len(texts)] if texts else question.references[0] if is_right else wrong
    stopped = at > 0 or number % 3 > 0
    answer = Answer(f"{question.record}@{question.shots}", text, text + "<end>", 7, stopped)
    if task.options:
        likelihoods = tuple(-1.0 - (option != text) for option in task.options)
        answer = replace(answer, num_tokens=0, likelihoods=likelihoods, option_lengths=(1,) * len(task.options))
    score = float(is_right)
    return JudgedAnswer(
        record=question.record,
        shots=question.shots,
        num_shown=question.num_shown,
        task=question.task,
        unseen=question.unseen,
        score_name=task.score,
        score=score,
        scores={"accuracy" if task.options else task.score.rpartition(":")[2]: score},
        note="" if is_right else "not the reference",
        answer=answer,
    )
