"""Requests that got no answer, until it is known that their teacher is not at fault.

A server that shuts down still answers what is under way. So a request has no answer for good once its teacher has
answered one that was made after it had failed. Until then the log does not say so, and the next process asks again.
An answer of no use is none of these: it may have to be paid, so it is in the log at once, and its teacher is there.
"""

from typing import NamedTuple

from sft.construction.request_log import Logged, RequestLog
from sft.construction.teacher import TeacherId
from sft.endpoint.chat import NoReply


class _One(NamedTuple):
    place: int
    """Among all that were in vain."""
    logged: Logged
    outcome: NoReply


class InVain:
    """Those of one process."""

    def __init__(self, log: RequestLog) -> None:
        """None yet; `log` gets those that have no answer for good."""
        self._log = log
        self._open: list[_One] = []
        self.num = 0
        """So many were in vain until now; a request that is made now is made after all these."""

    @property
    def num_open(self) -> int:
        """So many are not in the log yet."""
        return len(self._open)

    def add(self, logged: Logged, outcome: NoReply) -> None:
        """One more."""
        self._open.append(_One(self.num, logged, outcome))
        self.num += 1

    def settle(self, teacher: TeacherId, num: int) -> None:
        """The teacher has answered a request that was made after the first `num` of all: these have no answer."""
        left = []
        for one in self._open:
            if one.logged.teacher == teacher and one.place < num:
                self._log.add(one.logged, one.outcome)
            else:
                left.append(one)
        self._open = left

    def has(self, script: str, teacher: TeacherId) -> bool:
        """Whether a request of the script is among those that are open."""
        return any((one.logged.script, one.logged.teacher) == (script, teacher) for one in self._open)
