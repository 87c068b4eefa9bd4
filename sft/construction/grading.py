"""Has a teacher grade drafts: a script for each, whose request goes through the same log and budget as all others.

drafts that cheaper filters keep ──Grading.course──▶ asked at once ──▶ log ──Grading.grade──▶ the filter `judge`
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sft.construction.asking import NOT_ASKED, Asking, Job, Result
from sft.construction.filters.draft_parts import answer_of, has_calls
from sft.construction.filters.judge import SCORE, Graded
from sft.construction.prompts import without_control_tokens
from sft.construction.script import Failed, Script, ScriptName
from sft.construction.spending import Tokens, usual_tokens
from sft.construction.work import Work
from sft.draft import Draft
from sft.endpoint.chat import ChatRequest, NoReply
from sft.scoring.judge_prompt import judge_prompt, rubric_text, shape_of, turn_text
from sft.scoring.judge_verdict import graded
from sft.scoring.scorer import Question

_NAME = "judge"
_ID_DIGITS = 12
_MARK = re.compile(r"<(?=/?(?:prompt|answer|reference)>)", re.IGNORECASE)
"""How the marks of the judge's prompt begin."""
NOT_GRADED = Failed("it is not graded yet", is_final=False)


class Grading:
    """Grades by the settings of the filter."""

    def __init__(self, given: Graded, asking: Asking, teacher: int) -> None:
        """`teacher`: the number of the one that judges."""
        self._given, self._asking, self._teacher = given, asking, teacher
        self._rubric = rubric_text(given.rubric)

    def course(self, drafts: Iterable[Draft]) -> "GradingCourse":
        """What asks for the grades of these drafts, as far as the log lacks them."""
        return GradingCourse(map(self._open_job, drafts))

    def grade(self, draft: Draft) -> float | Failed:
        """The grade by the log alone, or why there is none."""
        result = self._asking.replay(self._job(draft))
        if isinstance(result, Failed):
            return NOT_GRADED if result is NOT_ASKED else result
        return result.provenance.scores[SCORE]

    def _open_job(self, draft: Draft) -> Job | None:
        """What asks for its grade; None where there is nothing to ask for."""
        if not self._given.concerns(draft):
            return None
        job = self._job(draft)
        result = self._asking.replay(job)
        return job if isinstance(result, Failed) and not result.is_final else None

    def _job(self, draft: Draft) -> Job:
        # The name is that of what is graded: an edited draft is another one, and is graded anew.
        name = ScriptName(_NAME, draft.task, int(draft.id[:_ID_DIGITS], 16))
        return Job(name, partial(self._script, name, draft), self._teacher)

    def _script(self, name: ScriptName, draft: Draft) -> Script:
        before: dict[str, Any] = {"messages": [*map(_quoted, _before_the_answer(draft))]}
        if draft.tools:
            before["tools"] = _as_data(json.dumps(draft.tools, ensure_ascii=False))
        reply = yield _request(str(name), self._given, self._rubric, before, _as_data(_shown_answer(draft)))
        low, high = self._given.scale
        if isinstance(reply, NoReply):
            return Failed("the judge does not answer")
        above, _ = graded(reply.text, low, high)
        if above is None:
            return Failed("the judge gives no grade")
        return replace(draft, provenance=replace(draft.provenance, scores={SCORE: low + above}))


def usual_grading(given: Graded, work: Work) -> tuple[int, Tokens]:
    """The requests, and about the most tokens that grading takes, if all that is wanted comes to the judge."""
    num, tokens, rubric = 0, Tokens(), rubric_text(given.rubric)
    for part in work.parts:
        if not given.tasks or part.task in given.tasks:
            # A draft has the system text of a seed.
            system = max((seed.system for seed in part.seeds), key=len, default="")
            before = {"messages": [_quoted({"role": "system", "content": system})]}
            one = usual_tokens(_request("", given, rubric, before, ""))
            prompt = one.prompt + part.recipe.num_texts * part.recipe.max_tokens
            num, tokens = num + part.num, tokens + Tokens(part.num * prompt, part.num * one.reply)
    return num, tokens


class GradingCourse:
    """Scripts that see no other, drawn one by one (see `sft.construction.at_once`)."""

    def __init__(self, jobs: Iterable[Job | None]) -> None:
        """None has begun; of each draft its job, or None where there is nothing to ask for."""
        self._jobs = iter(jobs)
        self._under_way = set[int]()
        """The numbers of those that have begun and not ended: an equal draft is the same job."""
        self.num_done = 0
        """Drafts of which there is nothing to ask for any more."""
        self._next = self._draw()

    @property
    def may_begin(self) -> bool:
        """Whether one is left."""
        return self._next is not None

    @property
    def next_teacher(self) -> int:
        """The number of the teacher that the next one asks."""
        assert self._next is not None
        return self._next.teacher

    def begin(self) -> Job:
        """The next one."""
        job = self._next
        assert job is not None
        self._under_way.add(job.name.number)
        self._next = self._draw()
        return job

    def end(self, number: int, result: Result) -> None:
        """Its grade is in the log."""
        self._under_way.discard(number)
        self.num_done += 1

    def leave(self, number: int) -> None:
        """Its grade is not; the others do not need it."""
        self._under_way.discard(number)

    def _draw(self) -> Job | None:
        for job in self._jobs:
            if job is not None and job.name.number not in self._under_way:
                return job
            self.num_done += 1
        return None


def _request(key: str, given: Graded, rubric: str, before: Mapping[str, Any], answer: str) -> ChatRequest:
    low, high = given.scale
    grades = list(range(low, high + 1))
    asked = Question(record=before)
    text = judge_prompt("grade.j2", asked, rubric=rubric, answer=answer, grades=grades)
    turn, shape = {"role": "user", "content": text}, shape_of("grade", grades)
    return ChatRequest(key, [turn], given.max_tokens, temperature=0.0, schema=shape)


def _as_data(text: str) -> str:
    """The text as it stands between the marks of the judge's prompt: it ends none of them, and speaks for no role."""
    return without_control_tokens(_MARK.sub(r"\\u003c", text))


def _quoted(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": message.get("role"), "content": _as_data(turn_text(message))}


def _before_the_answer(draft: Draft) -> list[Mapping[str, Any]]:
    """The turns before the last answer."""
    roles = [message.get("role") for message in draft.messages]
    last = len(roles) - 1 - roles[::-1].index("assistant") if "assistant" in roles else len(roles)
    return [*draft.messages[:last]]


def _shown_answer(draft: Draft) -> str:
    if has_calls(draft):
        return turn_text(draft.messages[-1])
    return answer_of(draft)
