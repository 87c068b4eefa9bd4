"""How all scripts end by the log, which is replayed once; at the first that it does not end, all it lacks is asked for.

Work ──replay──▶ Ended, Ended, … ─▶ filters
         └─ the log lacks an answer: ask_all ─▶ log ─▶ the replay goes on
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sft.construction.asking import Asking, Job, Result
from sft.construction.at_once import Course, ask_all
from sft.construction.request_log import RequestLog
from sft.construction.script import Failed
from sft.construction.spending import Spending
from sft.construction.teacher import TeacherError
from sft.construction.work import Ended, Work
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import EndpointError
from sft.errors import UserError


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    num_done: int
    """Scripts that have ended for good."""
    spending: Spending


class Replaying:
    """Asks at most once for what scripts lack."""

    def __init__(
        self,
        work: Work,
        asking: Asking,
        log: RequestLog,
        clients: Sequence[EndpointClient],
        tell: Callable[[Progress], None],
    ) -> None:
        """`clients` are looked at before they are asked; `tell` is called while it goes on."""
        self._work, self._asking, self._log, self._clients, self._tell = work, asking, log, clients, tell
        self._num_done = 0
        self._is_asked = False
        self.error: UserError | None = None
        """Why nothing more could be asked."""

    def ended(self) -> Iterator[Ended]:
        """All scripts in their order.

        Raises:
            UserError: the teacher cannot be asked at all.
        """
        return self._work.outcomes(self._run)

    def ask_for(self, courses: Iterable[Course], tell: Callable[[], None] = lambda: None) -> None:
        """Ask for what the log lacks; not if that was in vain before.

        Raises:
            UserError: the teacher cannot be asked at all.
        """
        courses = [course for course in courses if course.may_begin]
        if not courses or self.error is not None:
            return
        try:
            for client in self._clients:
                client.check()
            ask_all(self._asking, courses, tell)
        except (EndpointError, TeacherError) as error:
            if not len(self._log):
                raise
            self.error = error

    def _run(self, job: Job) -> Result:
        result = self._asking.replay(job)
        if not self._is_asked and isinstance(result, Failed) and not result.is_final:
            self._is_asked, self._num_done = True, 0
            self.ask_for(self._work.courses(), self._one_more)
            return self._asking.replay(job)
        if not self._is_asked:
            self._one_more()
        return result

    def _one_more(self) -> None:
        self._num_done += 1
        self._tell(Progress(self._num_done, self._asking.spending))
