"""Many scripts at once, each with one request under way: who has room begins the next script of the courses in turn.

    courses that may begin ──▶ script ──request──▶ its teacher ──▶ log ──▶ script ──▶ … ──▶ its course goes on

All runs in one thread. Nothing waits for a course but that course.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from sft.construction.asking import NOT_ASKED, Asking, Job, Played
from sft.construction.work import Course
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply

_AT_A_TIME = 256
"""So many scripts that the log answers run before what is under way is looked after."""


def ask_all(asking: Asking, courses: Iterable[Course], tell: Callable[[], None]) -> None:
    """Run the scripts of the courses to their ends, or until the budget is reached.

    Args:
        asking: asks the teachers.
        courses: none of them has begun.
        tell: called when a script has ended.

    Raises:
        UserError: no more can be asked, or the log cannot be written. The log has what was answered.
    """
    try:
        asyncio.run(_AtOnce(asking, courses, tell).run())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    asking.settle()


class _AtOnce:
    def __init__(self, asking: Asking, courses: Iterable[Course], tell: Callable[[], None]) -> None:
        self._asking, self._tell = asking, tell
        self._room = [teacher.at_once for teacher in asking.teachers]
        self._ready = [deque[Course]() for _ in asking.teachers]
        """Courses by the teacher that their next script asks, each in one place at most."""
        self._goes_on = False
        for course in courses:
            self._offer(course)

    async def run(self) -> None:
        async with AsyncExitStack() as opened:
            self._asks = [await opened.enter_async_context(teacher.opened()) for teacher in self._asking.teachers]
            async with asyncio.TaskGroup() as self._group:
                self._fill()

    def _offer(self, course: Course) -> None:
        if course.may_begin:
            self._ready[course.next_teacher].append(course)

    def _fill(self) -> None:
        """Begin as many scripts as the teachers have room for; what is answered by the log goes on in a while."""
        for _ in range(_AT_A_TIME):
            begun = [self._begin(ready.popleft()) for number, ready in enumerate(self._ready) if self._may(number)]
            if not begun:
                return
        if not self._goes_on:
            self._goes_on = True
            self._group.create_task(self._go_on())

    def _may(self, number: int) -> bool:
        return bool(self._ready[number] and self._room[number]) and not self._asking.spending.reached

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

    async def _hold(self, course: Course, job: Job, played: Played, first: ChatRequest) -> None:
        ask = self._asks[job.teacher]
        request: ChatRequest | None = first
        try:
            while request is not None:
                request = self._step(course, job, played, await ask(request))
        finally:
            played.close()
        self._room[job.teacher] += 1
        self._fill()

    def _step(
        self, course: Course, job: Job, played: Played, outcome: ChatReply | NoReply | None
    ) -> ChatRequest | None:
        """What the script asks next; None at its end."""
        try:
            return next(played) if outcome is None else played.send(outcome)
        except StopIteration as ended:
            if ended.value is not NOT_ASKED:
                could_begin = course.may_begin
                course.end(job.name.number, ended.value)
                course.taken.clear()
                if not could_begin:
                    self._offer(course)
                self._tell()
            return None
