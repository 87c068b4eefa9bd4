"""Many scripts at once, each with one request under way: who has room begins the next script of the courses in turn.

    courses that may begin ──▶ script ──waits──▶ budget has room ──▶ its teacher ──▶ log ──▶ script ──▶ … ──▶ its course

All runs in one thread, and scripts go on in one place, `_AtOnce._go_on`. Nothing waits for a course but that course.
Where a teacher is away, its scripts wait, and the others go on: scripts have their teachers by number, so no other one
takes over.

Where those under way may take all that is left of the budget, the script that began first is the next to ask, and no
other begins. So how many are asked at once does not decide which are asked.

A script that got no answer has ended only when its teacher has answered a request that was made later: later scripts
would see that it made nothing, and it may be asked again. If there is no later one, the teacher is asked a small one.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from sft.construction.asking import Asked, Asking, Job, Played, Result, is_in_vain
from sft.construction.script import Elsewhere, Failed
from sft.endpoint.chat import ChatReply, NoReply
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


@dataclass(frozen=True, slots=True)
class _Begun:
    place: int
    """In the order in which they began."""
    course: Course
    job: Job
    played: Played


class _AtOnce:
    def __init__(self, asking: Asking, courses: Iterable[Course], tell: Callable[[], None]) -> None:
        self._asking, self._spending, self._tell = asking, asking.spending, tell
        self._room = [teacher.at_once for teacher in asking.teachers]
        self._ready = [deque[Course]() for _ in asking.teachers]
        """Courses by the teacher that their next script asks, each in one place at most."""
        self._num_begun = 0
        self._waiting: list[tuple[int, _Begun, Asked]] = []
        """Requests that are not made yet, as a heap: that of the script that began first is the next."""
        self._num_under_way = 0
        """Requests, and things that run elsewhere."""
        self._has_found = asyncio.Event()
        """Something came of one of them, so others may begin."""
        self._unsettled: list[tuple[_Begun, Result]] = []
        """Scripts that got no answer, and whose teacher has not answered a later request."""
        for course in courses:
            self._offer(course)

    async def run(self) -> None:
        async with AsyncExitStack() as opened:
            self._elsewhere = opened.enter_context(ThreadPoolExecutor(1, "elsewhere"))
            self._asks = [await opened.enter_async_context(teacher.opened()) for teacher in self._asking.teachers]
            self._group = await opened.enter_async_context(asyncio.TaskGroup())
            while True:
                if self._begin():
                    await asyncio.sleep(0)
                elif self._num_under_way:
                    self._has_found.clear()
                    await self._has_found.wait()
                elif not await self._settle():
                    return

    # ------------------------------------------------------------ scripts

    def _begin(self) -> bool:
        """Begin scripts where there is room, or where the log may answer; whether more may begin at once."""
        for _ in range(_AT_A_TIME):
            able = [number for number in range(len(self._ready)) if self._may(number)]
            if not able:
                return False
            for number in able:
                course = self._ready[number].popleft()
                job = course.begin()
                self._offer(course)
                self._room[number] -= 1
                self._num_begun += 1
                self._go_on(_Begun(self._num_begun, course, job, self._asking.play(job)))
        return True

    def _may(self, number: int) -> bool:
        has_room = self._room[number] > 0 or number in self._asking.away
        return bool(self._ready[number]) and has_room and not self._waiting and not self._spending.reached

    def _offer(self, course: Course) -> None:
        if course.may_begin:
            self._ready[course.next_teacher].append(course)

    def _go_on(self, one: _Begun, found: Any = None, asked: Asked | None = None) -> None:
        """Go on with a script until it waits for something; `found` is what it has waited for, None at first."""
        if asked is not None:
            # Here, so that what it asks next is the first for which there is room then.
            self._spending.release(asked.most)
        if isinstance(found, UserError):
            self._asking.away.setdefault(one.job.teacher, found)
            self._leave(one)
        else:
            try:
                step = one.played.send(found)
            except StopIteration as ended:
                self._end(one, ended.value)
            else:
                if isinstance(step, Elsewhere):
                    self._start(one, self._run_elsewhere(step))
                else:
                    heapq.heappush(self._waiting, (one.place, one, step))
        self._end_settled()
        self._ask_waiting()

    def _leave(self, one: _Begun) -> None:
        """It asks no more."""
        one.played.close()
        self._end(one, self._asking.open_end(one.job))

    def _end(self, one: _Begun, result: Result) -> None:
        self._room[one.job.teacher] += 1
        if self._asking.is_settled(one.job) or (isinstance(result, Failed) and not result.is_final):
            self._tell_course(one, result)
        else:
            self._unsettled.append((one, result))

    def _tell_course(self, one: _Begun, result: Result) -> None:
        course, number, could_begin = one.course, one.job.name.number, one.course.may_begin
        if isinstance(result, Failed) and not result.is_final:
            course.leave(number)
        else:
            course.end(number, result)
            self._tell()
        if not could_begin:
            self._offer(course)

    # ------------------------------------------------------------ what they wait for

    def _ask_waiting(self) -> None:
        """Make the requests for which the budget has room; those that will not be made end their scripts."""
        while self._waiting:
            _, one, asked = self._waiting[0]
            number = one.job.teacher
            fits = number not in self._asking.away and self._asking.reserve(asked)
            if not fits and number not in self._asking.away and not self._spending.reached:
                return  # until something that is under way has ended
            heapq.heappop(self._waiting)
            if fits:
                self._start(one, self._answer(number, asked), asked)
            else:
                self._leave(one)

    def _start(self, one: _Begun, finding: Coroutine[Any, Any, Any], asked: Asked | None = None) -> None:
        async def find() -> None:
            found = await finding
            self._num_under_way -= 1
            # Here, so that of many answers at once the first one's script asks on before the second is looked at.
            self._go_on(one, found, asked)
            self._has_found.set()

        self._num_under_way += 1
        self._group.create_task(find())

    async def _run_elsewhere(self, step: Elsewhere) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._elsewhere, step.run)

    async def _answer(self, number: int, asked: Asked) -> ChatReply | NoReply | UserError:
        """What the teacher says; the error where it cannot be asked any more."""
        try:
            return await self._asks[number](asked.request)
        except UserError as error:
            return error

    # ------------------------------------------------------------ those without an answer

    def _end_settled(self) -> None:
        unsettled, self._unsettled = self._unsettled, []
        for one, result in unsettled:
            if self._asking.is_settled(one.job):
                self._tell_course(one, result)
            else:
                self._unsettled.append((one, result))

    async def _settle(self) -> bool:
        """Nothing is under way: ask the teachers of scripts without an answer one more; whether scripts may begin."""
        for number in sorted({one.job.teacher for one, _ in self._unsettled}):
            if number not in self._asking.away:
                await self._probe(number)
        self._end_settled()
        unsettled, self._unsettled = self._unsettled, []
        for one, _ in unsettled:
            self._tell_course(one, self._asking.open_end(one.job))
        return any(self._may(number) for number in range(len(self._ready)))

    async def _probe(self, number: int) -> None:
        asked = self._asking.probe(number)
        if self._asking.reserve(asked):
            outcome = await self._answer(number, asked)
            self._spending.release(asked.most)
            if isinstance(outcome, UserError):
                self._asking.away.setdefault(number, outcome)
            elif is_in_vain(outcome):
                self._asking.away[number] = UserError(
                    f"{self._asking.teachers[number].title}: the last requests got no answer, nor did one more: "
                    f"{outcome.reason}. See what its log says, and give the same command again: what was answered is "
                    f"kept."
                )
            else:
                self._asking.keep(asked, outcome)
