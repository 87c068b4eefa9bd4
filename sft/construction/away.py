"""Teachers that cannot be asked: the others go on, and at the end one message says who was away and what waits for it.

clients ──look_at──▶ Asking.away ;  outcomes ──Waiting.counted──▶ the same, counted ──▶ Waiting.error
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from sft.construction.asking import Asking
from sft.construction.script import Dropped, Failed
from sft.construction.work import Ended
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import EndpointError
from sft.errors import UserError
from sft.printable import counted


def look_at(asking: Asking, clients: Mapping[int, EndpointClient]) -> None:
    """Note which of these served teachers, by number, do not answer."""
    for number, client in clients.items():
        if number not in asking.away:
            try:
                client.check()
            except EndpointError as error:
                asking.away[number] = error


def away_error(asking: Asking, waiting: Mapping[int, int] | None = None) -> UserError | None:
    """The message for who was away; None where nobody was.

    Args:
        asking: has asked.
        waiting: of those that something waits for, how many records do. Default: all that are away.
    """
    away = {number: error for number, error in asking.away.items() if waiting is None or waiting.get(number)}
    if len(asking.teachers) == 1 or not away:
        return next(iter(away.values()), None)
    lines = [
        f"{asking.teachers[number].title} cannot be asked"
        + (f", and {counted(waiting[number], 'record')} of this construction wait for it" if waiting else "")
        + f":\n  {error}"
        for number, error in sorted(away.items())
    ]
    others = "What is the other teachers' is made. " if len(asking.away) < len(asking.teachers) else ""
    return UserError("\n".join([*lines, f"{others}The same command goes on with the rest."]))


class Waiting:
    """Counts what waits for teachers that are away: scripts, and drafts for their grades."""

    def __init__(self, asking: Asking) -> None:
        """It has asked."""
        self._asking = asking
        self._numbers = {asking.waits_for(number).reason: number for number in asking.away}
        self._num = Counter[int]()

    def counted(self, outcomes: Iterable[Ended]) -> Iterator[Ended]:
        """The same outcomes."""
        for one in outcomes:
            if isinstance(one.outcome, Failed | Dropped) and one.outcome.reason in self._numbers:
                self._num[self._numbers[one.outcome.reason]] += 1
            yield one

    @property
    def error(self) -> UserError | None:
        """What to tell, once all are counted."""
        return away_error(self._asking, self._num)
