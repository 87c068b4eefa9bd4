"""A grade by a model behind an endpoint, with a rubric, brought to 0 … 1. It is never chosen by default.

A judge errs, and likes long answers and its own (Zheng et al. 2023, arXiv 2306.05685): compare it with people first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt, field_validator

from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience
from sft.endpoint.paid import PaidReplies
from sft.progress import Tell
from sft.scoring.judge_prompt import DEFAULT_RUBRIC, judge_prompt, rubric_text, shape_of
from sft.scoring.judge_verdict import graded, labelled
from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict, failure

if TYPE_CHECKING:
    from sft.endpoint.client import EndpointClient

JUDGE_PATIENCE = Patience(seconds=120, seconds_in_all=300, retries=5)


class ModelJudge(Settings):
    """Asks a served model for a grade; each request is paid once."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "judge": Metric("judge", "grade of an answer by a model", "higher", JUDGED, is_share=True)
    }
    needs: ClassVar[Need] = "nothing"

    endpoint: str
    """The address of a server of OpenAI's chat completions, such as `http://127.0.0.1:8000/v1`."""
    model: str
    """Its name on the server."""
    rubric: str = DEFAULT_RUBRIC
    """What counts: a text, or the path of a file (`.txt`, `.md`) that the first worker sees."""
    scale: tuple[int, int] = (1, 5)
    """The worst and the best grade."""
    labels: tuple[str, ...] = ()
    """Instead of a scale: the grades in words, from the worst to the best."""
    api_key_env: str = ""
    """The variable with the key; by default `OPENAI_API_KEY`, if it is set."""
    max_tokens: PositiveInt = 512
    """Of a verdict."""

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        Endpoint(url)
        return url

    @field_validator("rubric")
    @classmethod
    def _is_readable(cls, rubric: str) -> str:
        rubric_text(rubric)
        return rubric

    @field_validator("scale")
    @classmethod
    def _rises(cls, scale: tuple[int, int]) -> tuple[int, int]:
        if not 0 < scale[1] - scale[0] <= 100:
            raise ValueError("is no scale from the worst to the best grade, such as [1, 5]")
        return scale

    @field_validator("labels")
    @classmethod
    def _differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len({label.casefold() for label in labels}) < len(labels) or len(labels) == 1 or not all(labels):
            raise ValueError("are no labels: give two or more that differ, from the worst to the best")
        return labels

    @property
    def grades(self) -> Sequence[Any]:
        """All grades, from the worst to the best: labels, or whole numbers."""
        return self.labels or range(self.scale[0], self.scale[1] + 1)

    def check(self) -> None:
        """Look whether it can be asked.

        Raises:
            EndpointError: it cannot.
        """
        self._client().check()

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """A grade of one answer; of many, `judge_all` is faster."""
        return self.judge_all([(answer, question)], None, lambda: None)[0]

    def judge_all(self, answers: Sequence[tuple[Answer, Question]], kept: Path | None, tell: Tell) -> list[Verdict]:
        """The grades, in order; many are asked for at once.

        Args:
            answers: each with its question.
            kept: the file of replies that are there already, and are added; None keeps none.
            tell: called whenever there is progress.
        """
        verdicts: dict[str, Verdict] = {}
        left = "not asked any more"

        def done(request: ChatRequest, outcome: ChatReply | NoReply) -> None:
            verdicts[request.key] = self._verdict(outcome)
            tell()

        requests = [self._request(str(number), *pair) for number, pair in enumerate(answers)]
        try:
            client = self._client()
            if kept:
                PaidReplies(kept).chat_all(client, requests, done)
            else:
                client.chat_all(requests, done)
        except EndpointError as error:
            left = str(error)
        return [verdicts.get(request.key) or failure(left) for request in requests]

    def _client(self) -> "EndpointClient":
        # Every worker imports what scores; few jobs ask a judge.
        from sft.endpoint.client import EndpointClient  # noqa: PLC0415  (aiohttp)

        return EndpointClient(Endpoint(self.endpoint, self.model, self.api_key_env), JUDGE_PATIENCE)

    def _request(self, key: str, answer: Answer, question: Question) -> ChatRequest:
        grades = [*self.grades]
        about = {"rubric": rubric_text(self.rubric), "answer": answer.text, "grades": grades}
        text = judge_prompt("grade.j2", question, **about)
        shape = shape_of("grade", grades)
        return ChatRequest(key, [{"role": "user", "content": text}], self.max_tokens, schema=shape)

    def _verdict(self, outcome: ChatReply | NoReply) -> Verdict:
        if isinstance(outcome, NoReply):
            return failure(outcome.reason)
        low, high = self.scale
        place, note = labelled(outcome.text, self.labels) if self.labels else graded(outcome.text, low, high)
        return failure(note) if place is None else Verdict({"judge": place / (len(self.grades) - 1)}, note)
