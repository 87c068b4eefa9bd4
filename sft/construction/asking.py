"""Runs scripts: what the log holds is given back, the rest is asked, and each reply is in the log before it is used.

script ──ChatRequest──▶ log has it? ──yes──▶ back to the script
                            └─no──▶ budget ──▶ teacher ──▶ log ──▶ back to the script
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sft.construction.request_log import Kept, Logged, RequestLog, request_name
from sft.construction.script import Failed, Script, ScriptName
from sft.construction.spending import Spending, Tokens, most_tokens, taken_tokens
from sft.construction.teacher import Teacher, TeacherId
from sft.draft import Draft
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply

NOT_ASKED = Failed("not asked yet", is_final=False)
_TRIES = 2
"""Of a request, each with the client's own; then it has no answer."""

Result = Draft | Failed

Played = Generator[ChatRequest, ChatReply | NoReply, Result]
"""A script that asks for what the log lacks alone; the key of each request is its name in the log."""


class Job(NamedTuple):
    """A script that can begin."""

    name: ScriptName
    begin: Callable[[], Script]
    teacher: int
    """The number of whom it asks."""


class Asking:
    """What the scripts of a construction share."""

    def __init__(self, teachers: Sequence[Teacher], log: RequestLog, spending: Spending) -> None:
        """`teachers` by number."""
        self.teachers, self.spending = teachers, spending
        self._log = log
        self._in_vain: list[tuple[Logged, NoReply]] = []

    def replay(self, job: Job) -> Result:
        """How a script ends by the log alone."""
        played = self._play(job, is_asking=False)
        try:
            next(played)
        except StopIteration as ended:
            result: Result = ended.value
            return result
        raise AssertionError("it would ask")

    def play(self, job: Job) -> Played:
        """The script; it is open at the end only where the budget is reached."""
        return self._play(job, is_asking=True)

    def settle(self, teacher: TeacherId | None = None) -> None:
        """Requests that got no answer have none: from now on that is in the log. Default: those of all teachers.

        Until the teacher answers another one, or all have been asked, it may be the server that is at fault. If nothing
        more can be asked, they are therefore not in the log, and asked again by the next process.
        """
        for logged, outcome in self._in_vain:
            if teacher in (None, logged.teacher):
                self._log.add(logged, outcome)
        self._in_vain = [one for one in self._in_vain if teacher not in (None, one[0].teacher)]

    def _play(self, job: Job, is_asking: bool) -> Played:
        teacher = self.teachers[job.teacher]
        script, used = job.begin(), list[Kept]()
        tokens = Tokens()
        try:
            request = next(script)
            while True:
                asked = request.content()
                name = request_name(teacher.id, asked, f"{job.name}/{len(used)}")
                kept = self._log.find(name)
                if kept is None:
                    outcome = (yield from self._ask(replace(request, key=name), asked)) if is_asking else None
                    if outcome is None:
                        return NOT_ASKED
                    kept = self._keep(Logged(name, str(job.name), teacher.id, asked), outcome)
                used.append(kept)
                tokens += taken_tokens(asked, kept.outcome)
                request = script.send(kept.outcome)
        except StopIteration as ended:
            return self._with_costs(ended.value, teacher, used, tokens)
        finally:
            script.close()

    def _ask(
        self, request: ChatRequest, asked: Mapping[str, Any]
    ) -> Generator[ChatRequest, ChatReply | NoReply, ChatReply | NoReply | None]:
        """The outcome of the last try; None where the budget has no room for a try."""
        outcome: ChatReply | NoReply | None = None
        most = most_tokens(asked)
        for _ in range(_TRIES):
            if not self.spending.reserve(most):
                return None
            outcome = None
            try:
                outcome = yield request
            finally:
                self.spending.settle(most, None if outcome is None else taken_tokens(asked, outcome))
            if isinstance(outcome, ChatReply):
                break
        return outcome

    def _keep(self, logged: Logged, outcome: ChatReply | NoReply) -> Kept:
        if isinstance(outcome, NoReply):
            self._in_vain.append((logged, outcome))
            return Kept(logged.name, outcome, "")
        self.settle(logged.teacher)
        return self._log.add(logged, outcome)

    def _with_costs(self, result: Result, teacher: Teacher, used: Sequence[Kept], tokens: Tokens) -> Result:
        if isinstance(result, Failed):
            return result
        more: dict[str, Any] = {
            "teacher": teacher.title,
            "requests": tuple(kept.name for kept in used),
            "num_tokens": tokens.total,
            "cost": self.spending.cost_of(tokens),
            "made": max((kept.date for kept in used), default=""),
        }
        return replace(result, provenance=replace(result.provenance, **more))
