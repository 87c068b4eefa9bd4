"""Runs scripts: what the log holds is given back, the rest is asked, and each reply is in the log before it is used.

script ──ChatRequest──▶ log has it? ──yes──▶ back to the script
                            └─no──▶ budget ──▶ teacher ──▶ log ──▶ back to the script
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sft.construction.request_log import Kept, Logged, RequestLog, request_name
from sft.construction.script import Elsewhere, Failed, Script, ScriptName
from sft.construction.spending import Spending, Tokens, most_tokens, taken_tokens
from sft.construction.teacher import Teacher, TeacherId
from sft.draft import Draft
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.errors import UserError

NOT_ASKED = Failed("not asked yet", is_final=False)
_TRIES = 2
"""Of a request, each with the client's own; then it has no answer."""

Result = Draft | Failed

Played = Generator[ChatRequest | Elsewhere, Any, Result]
"""A script that asks for what the log lacks alone; the key of each request is its name in the log."""


class Job(NamedTuple):
    """A script that can begin."""

    name: ScriptName
    begin: Callable[[], Script]
    teacher: int
    """The number of whom it asks."""


class _InVain(NamedTuple):
    place: int
    """Among all requests that were in vain."""
    asked: Logged
    outcome: NoReply


class Asking:
    """What the scripts of a construction share."""

    def __init__(self, teachers: Sequence[Teacher], log: RequestLog, spending: Spending) -> None:
        """`teachers` by number."""
        self.teachers, self.spending = teachers, spending
        self.away: dict[int, UserError] = {}
        """Teachers that cannot be asked any more, by number, each with the reason; their scripts go by the log."""
        self._log = log
        self._in_vain: list[_InVain] = []
        self._num_in_vain = 0

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
        """The script; it is open at the end only where the budget is reached, or its teacher is away."""
        return self._play(job, is_asking=True)

    @property
    def has_nothing(self) -> bool:
        """Whether the log is empty."""
        return not len(self._log)

    def is_settled(self, job: Job) -> bool:
        """Whether all that the script got is in the log; not while a request of it is in vain."""
        teacher = self.teachers[job.teacher].id
        return not any((one.asked.script, one.asked.teacher) == (str(job.name), teacher) for one in self._in_vain)

    def waits_for(self, number: int) -> Failed:
        """The end, for now, of a script whose teacher is away."""
        return Failed(f"it waits for {self.teachers[number].title}", is_final=False)

    def settle(self, teacher: TeacherId, until: int | None = None) -> None:
        """Requests that got no answer of the teacher have none: from now on that is in the log.

        Until it answers one that was made later, or all have been asked, it may be the server that is at fault: one
        that shuts down still answers what is under way. If it cannot be asked any more, they are therefore not in the
        log, and asked again by the next process.

        Args:
            teacher: whose they are.
            until: only the first so many of all that were in vain.
        """
        left = []
        for one in self._in_vain:
            if one.asked.teacher == teacher and (until is None or one.place < until):
                self._log.add(one.asked, one.outcome)
            else:
                left.append(one)
        self._in_vain = left

    def _play(self, job: Job, is_asking: bool) -> Played:
        teacher = self.teachers[job.teacher]
        script, used = job.begin(), list[Kept]()
        tokens = Tokens()
        try:
            request = next(script)
            while True:
                if isinstance(request, Elsewhere):
                    request = script.send((yield request) if is_asking else request.run())
                    continue
                asked = request.content()
                name = request_name(teacher.id, asked, f"{job.name}/{len(used)}")
                kept = self._log.find(name)
                if kept is None:
                    if job.teacher in self.away:
                        return self.waits_for(job.teacher)
                    until = self._num_in_vain
                    outcome = (yield from self._ask(replace(request, key=name), asked)) if is_asking else None
                    if outcome is None:
                        return NOT_ASKED
                    kept = self._keep(Logged(name, str(job.name), teacher.id, asked), outcome, until)
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

    def _keep(self, logged: Logged, outcome: ChatReply | NoReply, until: int) -> Kept:
        if isinstance(outcome, NoReply):
            self._in_vain.append(_InVain(self._num_in_vain, logged, outcome))
            self._num_in_vain += 1
            return Kept(logged.name, outcome, "")
        self.settle(logged.teacher, until)
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
