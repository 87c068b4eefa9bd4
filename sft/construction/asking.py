"""Runs scripts: what the log holds is given back, the rest is asked, and each reply is in the log before it is used.

script ──ChatRequest──▶ log has it? ──yes──▶ back to the script
                            └─no──▶ Asked ──at_once: budget, teacher──▶ log ──▶ back to the script
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sft.construction.in_vain import InVain
from sft.construction.request_log import PROBES, Kept, Logged, RequestLog, request_name
from sft.construction.script import Elsewhere, Failed, Script, ScriptName
from sft.construction.spending import Spending, Tokens, most_tokens, taken_tokens
from sft.construction.teacher import Teacher
from sft.draft import Draft
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.errors import UserError

NOT_ASKED = Failed("not asked yet", is_final=False)
PROBE = ChatRequest("", [{"role": "user", "content": "Say hello."}], max_tokens=64)
"""What any teacher can answer."""

Result = Draft | Failed


class Asked(NamedTuple):
    """A request that the log lacks."""

    request: ChatRequest
    """Its key is its name in the log."""
    logged: Logged
    most: Tokens
    """That it takes."""
    num_in_vain: int
    """So many requests had been in vain when it was made."""


Played = Generator[Asked | Elsewhere, Any, Result]
"""A script that asks for what the log lacks alone."""


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
        self.away: dict[int, UserError] = {}
        """Teachers that cannot be asked any more, by number, each with the reason; their scripts go by the log."""
        self._log, self._in_vain = log, InVain(log)

    @property
    def has_nothing(self) -> bool:
        """Whether the log is empty."""
        return not len(self._log)

    def replay(self, job: Job) -> Result:
        """How a script ends by the log alone."""
        played, found = self.play(job), None
        try:
            while isinstance(step := played.send(found), Elsewhere):
                found = step.run()
        except StopIteration as ended:
            result: Result = ended.value
            return result
        played.close()
        return self.open_end(job)

    def play(self, job: Job) -> Played:
        """The script, which is sent the outcome of each request that it yields.

        One without an answer is yielded once more, unless that may have to be paid.
        """
        teacher = self.teachers[job.teacher]
        script, used, tokens = job.begin(), list[Kept](), Tokens()
        try:
            request = next(script)
            while True:
                if isinstance(request, Elsewhere):
                    request = script.send((yield request))
                    continue
                logged = self._logged(request, job.name, job.teacher, len(used))
                kept = self._log.find(logged.name)
                if kept is None:
                    asked = self._asked(request, logged)
                    outcome = yield asked
                    if isinstance(outcome, NoReply) and not outcome.is_billed:
                        outcome = yield asked
                    kept = self.keep(asked, outcome)
                used.append(kept)
                tokens += taken_tokens(logged.asked, kept.outcome)
                request = script.send(kept.outcome)
        except StopIteration as ended:
            return self._with_costs(ended.value, teacher, used, tokens)
        finally:
            script.close()

    def keep(self, asked: Asked, outcome: ChatReply | NoReply) -> Kept:
        """Write the outcome of a request into the log: one without an answer when it is known to get none."""
        logged = asked.logged
        if isinstance(outcome, NoReply) and not outcome.is_counted:
            self._in_vain.add(logged, outcome)
            return Kept(logged.name, outcome, "")
        if isinstance(outcome, ChatReply):
            self._in_vain.settle(logged.teacher, asked.num_in_vain)
        return self._log.add(logged, outcome)

    def is_settled(self, job: Job) -> bool:
        """Whether all that the script got is in the log; not while a request of it is in vain."""
        return not self._in_vain.has(str(job.name), self.teachers[job.teacher].id)

    def open_end(self, job: Job) -> Failed:
        """The end, for now, of a script that lacks an answer."""
        return self.waits_for(job.teacher) if job.teacher in self.away else NOT_ASKED

    def waits_for(self, number: int) -> Failed:
        """The end, for now, of a script whose teacher is away."""
        return Failed(f"it waits for {self.teachers[number].title}", is_final=False)

    def probe(self, number: int) -> Asked:
        """A request that this teacher can answer: if it does, what was in vain before has no answer."""
        # Each has a number that none before it has: so many are in the log.
        name = ScriptName(PROBES, "", len(self._log))
        return self._asked(PROBE, self._logged(PROBE, name, number, 0))

    def _logged(self, request: ChatRequest, script: ScriptName, number: int, place: int) -> Logged:
        teacher, content = self.teachers[number].id, request.content()
        return Logged(request_name(teacher, content, f"{script}/{place}"), str(script), teacher, content)

    def _asked(self, request: ChatRequest, logged: Logged) -> Asked:
        return Asked(replace(request, key=logged.name), logged, most_tokens(logged.asked), self._in_vain.num)

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
