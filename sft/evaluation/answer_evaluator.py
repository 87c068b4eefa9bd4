"""Measures a model by its answers: asks it, judges what it says, and keeps every answer in a file.

An evaluation that is killed goes on with the answers that are there.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft.answer_files import replies_of
from sft.answering.answer import Answer, read_answer
from sft.answering.asking import Ask
from sft.errors import UserError
from sft.evaluation.judged_answers import judge, metrics_of_others, metrics_of_scores, sums_of, write_judged
from sft.evaluation.scores import Sums
from sft.json_lines import append_line, whole_lines, without_nan
from sft.progress import Progress, Tell
from sft.questions.question import Question
from sft.ranks.agreement import raise_together
from sft.ranks.ranks import Ranks
from sft.ranks.shared_work import work_together
from sft.scoring.metric import Metric
from sft.scoring.registry import Score


@dataclass(frozen=True)
class AnswerEvaluator:
    """`Evaluator` of answers; all ranks have the same questions and scores."""

    ask: Ask
    questions: Sequence[Question]
    scores: Mapping[str, Score]
    ranks: Ranks
    path: Path
    """The file that the answers are kept in."""
    about: Mapping[str, Any]
    """Identifies model and questions: answers that were kept for others are not used."""
    allow_code: bool = False
    """Whether code that the model wrote may be run."""
    _others: dict[str, Metric] = field(default_factory=dict, init=False)
    """What functions of the user's gave besides."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See `Evaluator`."""
        return metrics_of_scores(self.scores, (question.shots for question in self.questions)) | self._others

    def measure(self) -> Sums:
        """See `Evaluator`."""
        is_first = self.ranks.world.is_first
        kept = self._kept() if is_first else {}
        done = set(json.loads(self.ranks.gather(json.dumps([*kept]) if is_first else "")[0]))
        left = [question for question in self.questions if question.key not in done]
        if left:
            self.ask(left, self._keep)
        progress = Progress()
        judged, message = work_together(self.ranks, lambda: self._judge(progress.tell), progress)
        raise_together(self.ranks, message)
        sums: Sums = json.loads(self.ranks.gather(json.dumps(judged))[0])
        self._others.update(metrics_of_others(self.scores, sums))
        return sums

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}.partial")

    def _kept(self) -> dict[str, Answer]:
        """The answers of an evaluation that did not come to its end."""
        lines = [json.loads(line) for line in whole_lines(self._partial)] if self._partial.is_file() else []
        if not lines or lines[0] != self.about:
            self._partial.unlink(missing_ok=True)
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._partial, self.about)
            return {}
        keys = {question.key for question in self.questions}
        answers = (read_answer(content) for content in lines[1:])
        return {answer.key: answer for answer in answers if answer.key in keys}

    def _keep(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            append_line(self._partial, without_nan(answer.as_json()))

    def _judge(self, tell: Tell) -> tuple[Sums, str | None]:
        """The sums on the first rank, or why the scores cannot judge here."""
        if not self.ranks.world.is_first:
            return {}, None
        try:
            replies, answers = replies_of(self.path), self._kept()
            judged = list(judge(self.questions, answers, self.scores, self.allow_code, tell, replies))
        except UserError as error:
            return {}, str(error)
        write_judged(self.path, judged)
        self._partial.unlink()
        num_asked = Counter((question.task, question.shots) for question in self.questions)
        return sums_of(judged, self.scores, num_asked), None
