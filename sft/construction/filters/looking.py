"""Looks at drafts for all filters of a pass, many at a time: here, and where there are very many in other processes.

    Ended, in order ──batches──▶ this process, or one of several ──▶ Ended, with what each filter sees in its draft

Each is pickled once, for the process that looks at it and for the file in which it is kept.

A look depends on its draft alone. So neither batches nor processes matter for what is seen.
"""

import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from sft.construction.filters.draft_parts import DraftParts
from sft.construction.filters.filter import Filter, Look
from sft.construction.work import Ended
from sft.draft import Draft
from sft.errors import UserError

_BATCH = 256
_MOST_BYTES = 1 << 20
"""Of a batch, about: of long drafts it holds fewer."""
_FEW = 10_000
"""With fewer drafts, the time that other processes need to start is not won back."""
_MOST_PROCESSES = 4
"""To replay, compare and write a draft takes this process about as long as a look takes another: more would wait."""

Seen = list[Any]
"""What each filter saw, in their order, up to the first whose look decides that the draft is dropped."""

Batch = Sequence[tuple[Ended, bytes]]
"""Ends of scripts, and the same pickled."""


@dataclass(frozen=True, slots=True)
class Looking:
    """What is seen in drafts. It can be pickled."""

    looks: Sequence[tuple[Filter, Look | None, bool]]
    """Each filter, its look, and whether what this sees decides."""

    def __call__(self, drafts: Sequence[Draft]) -> list[Seen]:
        """What is seen in each."""
        parts = [DraftParts(draft) for draft in drafts]
        seen: list[Seen] = [[] for _ in drafts]
        left = [*range(len(drafts))]
        for given, look, decides in self.looks:
            found: dict[int, Any] = dict.fromkeys(left)
            if look is not None and (concerned := [i for i in left if given.concerns(drafts[i])]):
                found.update(zip(concerned, look.see_all([parts[i] for i in concerned]), strict=True))
            for i in left:
                seen[i].append(found[i])
            if decides:
                left = [i for i in left if found[i] is None]
        return seen


def looked_at(looking: Looking, ended: Iterable[Ended]) -> Iterator[tuple[Ended, bytes, Seen]]:
    """Each script's end, the same pickled, and what is seen in its draft; some of `ended` are read ahead.

    Raises:
        UserError: a process was killed.
    """
    batches, num = _batches(ended), 0
    for batch in batches:
        yield from _with(batch, looking(_drafts(one for one, _ in batch)))
        num += len(batch)
        if num >= _FEW and _num_processes() > 1 and any(look is not None for _, look, _ in looking.looks):
            break
    if (first := next(batches, None)) is not None:
        yield from _in_processes(looking, chain([first], batches))


def _in_processes(looking: Looking, batches: Iterable[Batch]) -> Iterator[tuple[Ended, bytes, Seen]]:
    num = _num_processes()
    free: SimpleQueue[Connection] = SimpleQueue()

    def look(batch: Batch) -> list[Seen]:
        connection = free.get()
        try:
            connection.send([data for one, data in batch if isinstance(one.outcome, Draft)])
            seen = connection.recv()
        except (EOFError, OSError):
            raise UserError(
                "construct.filters: a process that looks at drafts was killed. Is there memory for it? The same "
                "command goes on: nothing that was paid is lost."
            ) from None
        finally:
            free.put(connection)
        if isinstance(seen, Exception):
            raise seen
        assert isinstance(seen, list)
        return seen

    waiting: deque[tuple[Batch, Future[list[Seen]]]] = deque()
    with ExitStack() as connections, ThreadPoolExecutor(num) as threads, ExitStack() as running:
        running.callback(threads.shutdown, wait=False, cancel_futures=True)
        try:
            for _ in range(num):
                free.put(connections.enter_context(running.enter_context(_process(looking))))
        except OSError as error:  # no file handles or no memory left
            why = error.strerror or error
            sys.stderr.write(f"construct.filters: fewer processes look at drafts than might, so it is slower: {why}\n")
        if free.empty():
            for batch in batches:
                yield from _with(batch, looking(_drafts(one for one, _ in batch)))
        for batch in batches:
            waiting.append((batch, threads.submit(look, batch)))
            if len(waiting) > 2 * num:
                of, future = waiting.popleft()
                yield from _with(of, future.result())
        for of, future in waiting:
            yield from _with(of, future.result())


def _num_processes() -> int:
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)


@contextmanager
def _process(looking: Looking) -> Iterator[Connection]:
    """A process that looks until the connection ends, as it does when this process is killed."""
    # A fork of this process could inherit a lock that one of its threads holds.
    context = get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_look_for, args=(its, looking), daemon=True)
    with its:
        try:
            process.start()
        except OSError:
            ours.close()
            raise
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def _look_for(connection: Connection, looking: Looking) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that asks
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # other processes look meanwhile
    while True:
        try:
            given = connection.recv()
        except (EOFError, OSError):
            return
        try:
            said: list[Seen] | Exception = looking(_drafts(map(pickle.loads, given)))
        except Exception as error:
            said = error
        connection.send(said)


def _batches(ended: Iterable[Ended]) -> Iterator[Batch]:
    batch, num_bytes = list[tuple[Ended, bytes]](), 0
    for one in ended:
        batch.append((one, pickle.dumps(one)))
        num_bytes += len(batch[-1][1])
        if len(batch) == _BATCH or num_bytes > _MOST_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _drafts(ended: Iterable[Ended]) -> list[Draft]:
    return [one.outcome for one in ended if isinstance(one.outcome, Draft)]


def _with(batch: Batch, seen: Sequence[Seen]) -> Iterator[tuple[Ended, bytes, Seen]]:
    of_drafts = iter(seen)
    return ((one, data, next(of_drafts) if isinstance(one.outcome, Draft) else []) for one, data in batch)
