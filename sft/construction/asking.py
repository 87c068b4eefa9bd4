"""Runs scripts: what the log holds is given back, the rest is asked, and each reply is in the log before it is used.

script ──ChatRequest──▶ log has it? ──yes──▶ back to the script
                            └─no──▶ budget ──▶ teacher ──▶ log ──▶ back to the script
"""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import NamedTuple

from sft.construction.request_log import Kept, RequestLog, request_name
from sft.construction.script import Failed, Script, ScriptName
from sft.construction.spending import Spending, Tokens, most_tokens
from sft.draft import Draft
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint

NOT_ASKED = Failed("not asked yet", is_final=False)
_TRIES = 2
"""Of a request, each with the client's own; then it has no answer."""

Result = Draft | Failed


class Job(NamedTuple):
    """A script that can be begun again."""

    name: ScriptName
    begin: Callable[[], Script]


class Asking:
    """What the scripts of a construction share."""

    def __init__(self, teacher: Endpoint, log: RequestLog, spending: Spending) -> None:
        """`teacher` has the name of its model."""
        self.spending = spending
        self._teacher, self._log = teacher, log
        self._in_vain: list[tuple[str, ScriptName, ChatRequest, NoReply]] = []
        self._tries: Counter[str] = Counter()

    def replay(self, jobs: Sequence[Job]) -> list[Result]:
        """How these scripts end by the log alone, in their order."""
        results = []
        for job in jobs:
            played = self._play(job, is_asking=False)
            try:
                next(played)
                raise AssertionError("it would ask")
            except StopIteration as ended:
                results.append(ended.value)
        return results

    def ask(self, client: EndpointClient, jobs: Sequence[Job], tell: Callable[[], None]) -> list[Result]:
        """How these scripts end, in their order. One is open at the end only where the budget is reached.

        Args:
            client: of the teacher.
            jobs: a round.
            tell: called when one has ended.

        Raises:
            EndpointError: no more can be asked. The log has what was answered.
            UserError: the log cannot be written.
        """
        results: list[Result] = [NOT_ASKED] * len(jobs)

        def run(i: int) -> Generator[ChatRequest, ChatReply | NoReply, None]:
            results[i] = yield from self._play(jobs[i], is_asking=True)
            if not isinstance(result := results[i], Failed) or result.is_final:
                tell()

        while not self.spending.reached:
            left = [i for i, result in enumerate(results) if isinstance(result, Failed) and not result.is_final]
            if not left:
                break
            client.hold_all(run(i) for i in left)
            self._settle()
        return results

    def _settle(self) -> None:
        """Requests that got no answer again have none: from now on that is in the log."""
        for name, script, request, outcome in self._in_vain:
            self._tries[name] += 1
            if self._tries[name] == _TRIES:
                self._log.add(name, str(script), self._teacher, request, outcome)
        self._in_vain.clear()

    def _play(self, job: Job, is_asking: bool) -> Generator[ChatRequest, ChatReply | NoReply, Result]:
        script, used = job.begin(), list[Kept]()
        tokens = Tokens()
        try:
            request = next(script)
            while True:
                name = request_name(self._teacher, request, f"{job.name}/{len(used)}")
                kept = self._log.find(name)
                if kept is None:
                    if not is_asking or not self.spending.reserve(request):
                        return NOT_ASKED
                    outcome = yield request
                    self.spending.settle(request, outcome)
                    if isinstance(outcome, NoReply):
                        self._in_vain.append((name, job.name, request, outcome))
                        return Failed("no answer yet", is_final=False)
                    kept = self._log.add(name, str(job.name), self._teacher, request, outcome)
                used.append(kept)
                tokens += _counted(request, kept.outcome)
                request = script.send(kept.outcome)
        except StopIteration as ended:
            return self._with_costs(ended.value, used, tokens)
        finally:
            script.close()

    def _with_costs(self, result: Result, used: Sequence[Kept], tokens: Tokens) -> Result:
        if isinstance(result, Failed):
            return result
        provenance = replace(
            result.provenance,
            teacher=f"{self._teacher.model} at {self._teacher.url}",
            requests=tuple(kept.name for kept in used),
            num_tokens=tokens.total,
            cost=self.spending.cost_of(tokens),
            made=max((kept.date for kept in used), default=""),
        )
        return replace(result, provenance=provenance)


def _counted(request: ChatRequest, outcome: ChatReply | NoReply) -> Tokens:
    """As the budget counts them."""
    if isinstance(outcome, NoReply):
        return Tokens()
    most = most_tokens(request)
    prompt = most.prompt if outcome.num_prompt_tokens is None else outcome.num_prompt_tokens
    return Tokens(prompt, most.reply if outcome.num_tokens is None else outcome.num_tokens)
