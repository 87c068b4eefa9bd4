"""Has blocks of records prepared by a process that speaks to Ray (`block_process`), and by another where Ray is lost.

    ──Preparing─▶   ◀─Connected──   then ◀─Wanted── ──a block, or None─▶   ◀─PreparedBlock──   …   ◀─one of Last──

What was sent to a process that is lost, and has not come back, is sent to the next one.
"""

import os
import socket
import subprocess
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from multiprocessing.connection import Connection
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from launcher.cluster.ray_losses import COME_BACK_SECONDS, RayLosses
from launcher.cluster.ray_process import how_it_ended, start_ray_process
from launcher.console import say_error
from sft.data.block_preparer import BlockPreparer, PreparedBlock, prepare_in_threads
from sft.data.reading.blocks import Block
from sft.errors import UserError
from sft.printable import shortened

_LEAST_BLOCKS, _LEAST_CPUS = 32, 4
"""On one machine with less to do, or less to do it with, threads are done before Ray's processes have started."""

_MOST_LOSSES = 3
"""In a row, without a block that came back in between."""

_END_SECONDS = 20.0
_MOST_CHARS = 300


class Preparing(NamedTuple):
    """What is asked of the process: the config's sections, as JSON."""

    data: str
    model: str


class Connected(NamedTuple):
    """It has reached Ray, or started it."""


class Wanted(NamedTuple):
    """There is room for another block."""


class Done(NamedTuple):
    """Every block has come back."""


class Refused(NamedTuple):
    """The user can put it right: Ray cannot be reached or started, or the tokenizer is unusable on a node."""

    text: str


class Failed(NamedTuple):
    """The program has met an error in a task."""

    text: str


class Lost(NamedTuple):
    """Ray is gone."""

    text: str


Last = Done | Refused | Failed | Lost


def prepare_on_cluster(preparer: BlockPreparer, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
    """Prepare the blocks on the cluster of `RAY_ADDRESS`; without one, on this machine's CPUs where there are many.

    Raises:
        UserError: the cluster cannot be reached, or was lost too often, or a task found that the tokenizer is unusable
            on its node.
    """
    is_named = bool(os.environ.get("RAY_ADDRESS"))
    num_cpus = os.cpu_count() or 1
    first = list(islice(blocks, 1 if is_named else _LEAST_BLOCKS))
    if not first or (not is_named and (len(first) < _LEAST_BLOCKS or num_cpus < _LEAST_CPUS)):
        yield from prepare_in_threads(preparer, chain(first, blocks))
        return
    asked = Preparing(preparer.data.model_dump_json(), preparer.model.model_dump_json())
    yield from _whatever_becomes_of_ray(asked, chain(first, blocks))


def _whatever_becomes_of_ray(asked: Preparing, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
    sent: deque[Block] = deque()
    again: deque[Block] = deque()
    losses = RayLosses(_MOST_LOSSES)
    while True:
        again.extendleft(reversed(sent))
        sent.clear()
        is_connected, had_progress = False, False
        with _process() as (process, speak, log):
            last: Last
            try:
                speak.send(asked)
                while True:
                    said = speak.recv()
                    if isinstance(said, Connected):
                        is_connected = True
                    elif isinstance(said, Wanted):
                        block = again.popleft() if again else next(blocks, None)
                        if block is not None:
                            sent.append(block)
                        speak.send(block)
                    elif isinstance(said, PreparedBlock):
                        sent.popleft()
                        had_progress = True
                        yield said
                    else:
                        last = said
                        break
            except (EOFError, ConnectionError):
                last = Lost(f"the process that speaks to Ray {how_it_ended(process.wait())}{_last_words(log)}")
        if isinstance(last, Done):
            return
        if isinstance(last, Failed):
            raise RuntimeError(last.text)
        if isinstance(last, Refused):
            if is_connected or not losses.in_a_row:
                raise UserError(last.text)
            if losses.is_named:
                if losses.may_come_back():
                    continue
                raise UserError(f"{last.text}\nIt did not come back in {COME_BACK_SECONDS:.0f} s.")
        losses.add(had_progress)
        if losses.are_too_many:
            raise UserError(
                f"Ray was lost {losses.in_a_row} times in a row while data was prepared. The last time: {last.text}. "
                "The same command goes on with what is prepared."
            )
        follows = "as soon as the cluster answers" if losses.is_named else "with a Ray that is started again"
        say_error(f"Ray was lost: {last.text}; the preparation goes on {follows}")
        losses.pause()


@contextmanager
def _process() -> Iterator[tuple["subprocess.Popen[bytes]", Connection, IO[bytes]]]:
    ours, its = socket.socketpair()
    with TemporaryFile() as log, Connection(ours.detach()) as speak:
        with its:
            process = start_ray_process("launcher.cluster.block_process", its.fileno(), subprocess.DEVNULL, log)
        try:
            yield process, speak, log
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        finally:
            process.kill()
            process.wait()


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "")
    return f" ({shortened(said, _MOST_CHARS)})" if said else ""
