"""Many scripts at once, each with one request under way: who has room begins the next script of the courses in turn.

    courses that may begin ──▶ script ──request──▶ its teacher ──▶ log ──▶ script ──▶ … ──▶ its course goes on

All runs in one thread. Nothing waits for a course but that course. Where a teacher is away, its scripts wait, and the
others go on: scripts have their teachers by number, so no other one takes over. A script that got no answer has ended
only when its teacher answers another one: later scripts would see that it made nothing, and it may be asked again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Protocol

from sft.construction.asking import Asking, Job, Played, Result
from sft.construction.script import Elsewhere, Failed
from sft.construction.teacher import TeacherId
from sft.construction.work import Ended
from sft.endpoint.chat import ChatReply, ChatRequest
from sft.errors import UserError

_AT_A_TIME = 256
"""So many scripts that the log answers run before what is under way is looked after."""


class Course(Protocol):
    """Scripts that begin one after the other."""

    @property
    def may_begin(self) -> bool:
        """Whether the next script may begin now; if not, it may when another has ended."""
        ...

    @property
    def next_teacher(self) -> int:
        """The number of the teacher that the next script asks."""
        ...

    @property
    def taken(self) -> deque[Ended]:
        """What came of scripts, as far as it is known; nobody needs it here."""
        ...

    def begin(self) -> Job:
        """The next script."""
        ...

    def end(self, number: int, result: Result) -> None:
        """A script has ended."""
        ...

    def leave(self, number: int) -> None:
        """A script does not end here: its teacher is away, or the budget is reached."""
        ...


def ask_all(asking: Asking, courses: Iterable[Course], tell: Callable[[], None]) -> None:
    """Run the scripts of the courses to their ends, until the budget is reached, or as far as teachers can be asked.

    Those that cannot be asked any more are in `asking.away` then.

    Args:
        asking: asks the teachers.
        courses: none of them has begun.
        tell: called when a script has ended.

    Raises:
        UserError: the log cannot be written. It has what was answered before.
    """
    try:
        asyncio.run(_AtOnce(asking, courses, tell).run())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


class _AtOnce:
    def __init__(self, asking: Asking, courses: Iterable[Course], tell: Callable[[], None]) -> None:
        self._asking, self._tell = asking, tell
        self._room = [teacher.at_once for teacher in asking.teachers]
        self._ready = [deque[Course]() for _ in asking.teachers]
        """Courses by the teacher that their next script asks, each in one place at most."""
        self._unsettled: list[tuple[Course, Job, Result]] = []
        """Scripts that got no answer, and whose teacher has not answered another one since."""
        self._goes_on = False
        for course in courses:
            self._offer(course)

    async def run(self) -> None:
        async with AsyncExitStack() as opened:
            self._elsewhere = opened.enter_context(ThreadPoolExecutor(1, "elsewhere"))
            self._asks = [await opened.enter_async_context(teacher.opened()) for teacher in self._asking.teachers]
            may_begin = True
            while may_begin:
                async with asyncio.TaskGroup() as self._group:
                    self._fill()
                may_begin = self._settle_all()

    def _settle_all(self) -> bool:
        """All have been asked: what got no answer has none, but for teachers that are away. Whether more may begin."""
        for number, teacher in enumerate(self._asking.teachers):
            if number not in self._asking.away:
                self._asking.settle(teacher.id)
                self._end_settled(teacher.id)
        return any(self._may(number) for number in range(len(self._ready)))

    def _end_settled(self, teacher: TeacherId) -> None:
        unsettled, self._unsettled = self._unsettled, []
        for one in unsettled:
            if self._asking.teachers[one[1].teacher].id == teacher:
                self._end(*one)
            else:
                self._unsettled.append(one)

    def _offer(self, course: Course) -> None:
        if course.may_begin:
            self._ready[course.next_teacher].append(course)

    def _fill(self) -> None:
        """Begin as many scripts as the teachers have room for; what is answered by the log goes on in a while."""
        for _ in range(_AT_A_TIME):
            able = [number for number in range(len(self._ready)) if self._may(number)]
            if not able:
                return
            for number in able:
                self._begin(self._ready[number].popleft())
        if not self._goes_on:
            self._goes_on = True
            self._group.create_task(self._go_on())

    def _may(self, number: int) -> bool:
        has_room = self._room[number] > 0 or number in self._asking.away
        return bool(self._ready[number]) and has_room and not self._asking.spending.reached

    async def _go_on(self) -> None:
        await asyncio.sleep(0)
        self._goes_on = False
        self._fill()

    def _begin(self, course: Course) -> None:
        job = course.begin()
        self._offer(course)
        played = self._asking.play(job)
        request = self._step(course, job, played, None)
        if request is not None:
            self._room[job.teacher] -= 1
            self._group.create_task(self._hold(course, job, played, request))

    async def _hold(self, course: Course, job: Job, played: Played, first: ChatRequest | Elsewhere) -> None:
        ask = self._asks[job.teacher]
        request: ChatRequest | Elsewhere | None = first
        try:
            while request is not None:
                if isinstance(request, Elsewhere):
                    found = await asyncio.get_running_loop().run_in_executor(self._elsewhere, request.run)
                    request = self._step(course, job, played, found)
                    continue
                try:
                    outcome = await ask(request)
                except UserError as error:
                    self._asking.away.setdefault(job.teacher, error)
                    self._end(course, job, self._asking.waits_for(job.teacher))
                    break
                request = self._step(course, job, played, outcome)
        finally:
            played.close()
        self._room[job.teacher] += 1
        self._fill()

    def _step(self, course: Course, job: Job, played: Played, outcome: Any) -> ChatRequest | Elsewhere | None:
        """What the script waits for next; None at its end."""
        try:
            return next(played) if outcome is None else played.send(outcome)
        except StopIteration as ended:
            self._end(course, job, ended.value)
            return None
        finally:
            if self._unsettled and isinstance(outcome, ChatReply):
                self._end_settled(self._asking.teachers[job.teacher].id)
                self._fill()

    def _end(self, course: Course, job: Job, result: Result) -> None:
        could_begin = course.may_begin
        if isinstance(result, Failed) and not result.is_final:
            course.leave(job.name.number)
        elif not self._asking.is_settled(job):
            self._unsettled.append((course, job, result))
        else:
            course.end(job.name.number, result)
            self._tell()
        course.taken.clear()
        if not could_begin:
            self._offer(course)
