"""Which of two models answers better, by a judging model that sees each pair of answers in both orders.

    answers of two models, question by question ──both orders──▶ judge ──▶ win, tie, loss; a file with each verdict

Judges favour what comes first (Wang et al. 2023, arXiv 2305.17926), so two orders that disagree are a tie.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from sft.atomic_files import write_lines
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.endpoint.client import EndpointClient
from sft.endpoint.paid import PaidReplies
from sft.evaluation.judged_answers import expected_of
from sft.printable import printable, shortened
from sft.progress import Tell
from sft.questions.question import Question
from sft.scoring.judge_prompt import judge_prompt, shape_of
from sft.scoring.judge_verdict import preferred
from sft.scoring.statistics import Interval, micro_interval
from sft.thoughts import answer_in

Outcome = Literal["win", "tie", "loss"]
POINTS: Mapping[str, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_MAX_TOKENS = 512
_NOTE_CHARS = 300
_NAMES: Mapping[bool, Mapping[str, Outcome]] = {
    True: {"A": "win", "B": "loss", "tie": "tie"},
    False: {"A": "loss", "B": "win", "tie": "tie"},
}
"""What a verdict means for the model, by whether its answer came first."""


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A line of the file of pairs."""

    key: str
    """That of the question."""
    task: str
    shots: int
    outcome: Outcome | None
    """For the first model; None where a verdict is missing."""
    as_first: str
    """What was said when its answer came first: win, tie, loss, or empty; then the reason."""
    as_second: str


@dataclass(frozen=True, slots=True)
class PairTotals:
    """The pairs of a task, or of all."""

    num_wins: int
    num_ties: int
    num_losses: int
    num_not_judged: int
    rate: Interval
    """Wins and half of the ties, as a share."""


def judge_pairs(
    questions: Sequence[Question],
    answers: tuple[Mapping[str, str], Mapping[str, str]],
    client: EndpointClient,
    rubric: str,
    files: tuple[Path, Path],
    tell: Tell,
) -> list[JudgedPair]:
    """The verdicts on all questions that both models answered.

    What the judge said is kept, and not asked again. The same answer twice is a tie. Thoughts are no part of answers.

    Args:
        questions: of the run.
        answers: the texts of the model and of the other one, by question.
        client: the judge's.
        rubric: what counts.
        files: for the verdicts, and for what the judge said; see `sft.run_folder.pairs_of`.
        tell: called whenever there is progress.

    Raises:
        EndpointError: no more can be asked; what was said is kept.
    """
    said: dict[str, tuple[Outcome | None, str]] = {}
    asked = [question for question in questions if all(question.key in own for own in answers)]

    def done(request: ChatRequest, outcome: ChatReply | NoReply) -> None:
        better, note = (None, outcome.reason) if isinstance(outcome, NoReply) else preferred(outcome.text)
        is_first = request.key.startswith("+")
        said[request.key] = (_NAMES[is_first][better] if better else None, shortened(printable(note), _NOTE_CHARS))
        tell()

    requests = []
    for question in asked:
        own, other = (answer_in(given[question.key]).answer.strip() for given in answers)
        if own == other:
            said |= {f"{order}{question.key}": ("tie", "the same answer") for order in "+-"}
        else:
            requests += [
                _request(f"+{question.key}", question, rubric, own, other),
                _request(f"-{question.key}", question, rubric, other, own),
            ]
    path, replies = files
    PaidReplies(replies).chat_all(client, requests, done)
    pairs = [_pair(question, said) for question in asked]
    write_lines(path, (json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs))
    return pairs


def preferences_in(questions: Iterable[Question]) -> tuple[list[Question], tuple[dict[str, str], dict[str, str]]]:
    """The questions of which people prefer the record's own answer to another one, each once, and both answers.

    What judges the two sees no reference: that would be the one of them.
    """
    found: dict[str, Question] = {}
    for question in questions:
        if question.rejected and question.references:
            found.setdefault(question.record, question)
    own = {question.key: question.references[0] for question in found.values()}
    rejected = {question.key: question.rejected for question in found.values()}
    return [replace(question, references=question.references[1:]) for question in found.values()], (own, rejected)


def totals_of(pairs: Iterable[JudgedPair]) -> PairTotals:
    """How often the model won."""
    own = [*pairs]
    outcomes = [pair.outcome for pair in own]
    points: dict[str, dict[str, float]] = {}
    for pair in own:
        if pair.outcome:
            points.setdefault(pair.task, {})[pair.key] = POINTS[pair.outcome]
    counts = (outcomes.count("win"), outcomes.count("tie"), outcomes.count("loss"), outcomes.count(None))
    return PairTotals(*counts, micro_interval(points))


def _request(key: str, question: Question, rubric: str, first: str, second: str) -> ChatRequest:
    text = judge_prompt("compare.j2", expected_of(question), rubric=rubric, first=first, second=second)
    shape = shape_of("better", ["A", "B", "tie"])
    return ChatRequest(key, [{"role": "user", "content": text}], _MAX_TOKENS, schema=shape)


def _pair(question: Question, said: Mapping[str, tuple[Outcome | None, str]]) -> JudgedPair:
    first, second = said[f"+{question.key}"], said[f"-{question.key}"]
    outcome = None if None in (first[0], second[0]) else first[0] if first[0] == second[0] else "tie"
    shown = [f"{verdict or ''}: {note}" for verdict, note in (first, second)]
    return JudgedPair(question.key, question.task, question.shots, outcome, *shown)
