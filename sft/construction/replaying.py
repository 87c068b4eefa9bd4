"""How all scripts end by the log, which is replayed once; at the first that it does not end, all it lacks is asked for.

Work ──replay──▶ Ended, Ended, … ─▶ filters
         └─ the log lacks an answer: ask_all ─▶ log ─▶ the replay goes on
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sft.construction.asking import Asking, Job, Result
from sft.construction.at_once import Course, ask_all
from sft.construction.away import away_error, look_at
from sft.construction.grading import GradingCourse
from sft.construction.script import Failed
from sft.construction.spending import Spending
from sft.construction.work import Ended, Work
from sft.endpoint.client import EndpointClient
from sft.errors import UserError

CONSTRUCTING, MEASURING, GRADING = "constructing", "measuring losses", "grading"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    what: str
    """What is done now."""
    num_done: int
    """Scripts that have ended for good; drafts that are measured or graded."""
    num: int
    """Of so many, at most."""
    spending: Spending
    away: Sequence[str] = ()
    """Teachers that cannot be asked any more."""


class Replaying:
    """Asks at most once for what scripts lack."""

    def __init__(
        self, work: Work, asking: Asking, served: Mapping[int, EndpointClient], tell: Callable[[Progress], None]
    ) -> None:
        """`served` are clients by the number of their teacher; `tell` is called while it goes on."""
        self._work, self._asking, self._served, self._tell = work, asking, served, tell
        self._num_done = 0
        self._is_asked = False

    def ended(self) -> Iterator[Ended]:
        """All scripts in their order.

        Raises:
            UserError: no teacher can be asked at all, and the log is empty.
        """
        return self._work.outcomes(self._run)

    def ask_for_grades(self, course: GradingCourse, num: int) -> None:
        """Ask for the grades that the log lacks, of `num` drafts at most."""
        if course.may_begin:
            look_at(self._asking, {i: client for i, client in self._served.items() if i == course.next_teacher})
            self._ask_all([course], lambda: self._say(GRADING, course.num_done, num))

    def _run(self, job: Job) -> Result:
        result = self._asking.replay(job)
        if not self._is_asked and isinstance(result, Failed) and not result.is_final:
            self._ask()
            return self._asking.replay(job)
        if not self._is_asked:
            self._one_more()
        return result

    def _ask(self) -> None:
        self._is_asked, self._num_done = True, 0
        look_at(self._asking, self._served)
        self._ask_all(self._work.courses(), self._one_more)
        if self._asking.has_nothing and (error := away_error(self._asking)) is not None:
            raise error

    def _ask_all(self, courses: Iterable[Course], tell: Callable[[], None]) -> None:
        try:
            ask_all(self._asking, courses, tell)
        except OSError as error:  # of this machine, such as too many open files; servers that are away are none
            raise UserError(
                f"construct: this machine cannot ask any more: {error.strerror or error}. The same command goes on: "
                f"nothing that was paid is lost."
            ) from error

    def _one_more(self) -> None:
        self._num_done += 1
        self._say(CONSTRUCTING, self._num_done, self._work.num)

    def _say(self, what: str, num_done: int, num: int) -> None:
        away = [self._asking.teachers[number].title for number in sorted(self._asking.away)]
        self._tell(Progress(what, num_done, num, self._asking.spending, away))
