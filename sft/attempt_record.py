"""The record of one start of the job, besides its events: its ranks, and why it ended. Written and read here."""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

from sft.atomic_files import read_json, write_json
from sft.json_lines import from_json
from sft.run_folder import AttemptFolder
from sft.url_secrets import without_secrets
from sft.world import World

Why = Literal["done", "stopped", "regroup", "wrong input", "failed"]


@dataclass(frozen=True, slots=True)
class RankProcess:
    """Where to find the process of a rank."""

    pid: int
    node: str

    def __str__(self) -> str:
        """As people read it."""
        return f"node {self.node}, pid {self.pid}"


RankProcesses = Mapping[int, RankProcess]


@dataclass(frozen=True, slots=True)
class End:
    """Why an attempt ended, and what the user should know about it."""

    why: Why
    message: str = ""


def write_began(folder: AttemptFolder, world_size: int) -> None:
    """Record that the attempt begins with this many ranks."""
    write_json(folder.began, {"time": time.time(), "world_size": world_size})


def read_num_ranks(folder: AttemptFolder) -> int | None:
    """How many ranks it began with; None if it has not begun."""
    return int(read_json(folder.began)["world_size"]) if folder.began.is_file() else None


def write_rank(folder: AttemptFolder, world: World) -> None:
    """Record which process this rank is."""
    write_json(folder.rank(world.rank), asdict(RankProcess(os.getpid(), world.node)))


def read_rank(folder: AttemptFolder, rank: int) -> RankProcess | None:
    """Which process a rank was; None if it has not begun."""
    path = folder.rank(rank)
    return from_json(RankProcess, read_json(path)) if path.is_file() else None


def read_ranks(folder: AttemptFolder) -> RankProcesses:
    """Which process each rank was, for the ranks that have begun."""
    return {rank: from_json(RankProcess, read_json(path)) for rank, path in folder.ranks().items()}


def named(found: Iterable[int], ranks: RankProcesses) -> str:
    """These ranks, each with its process if that is known."""
    return ", ".join(f"rank {r} ({ranks[r]})" if r in ranks else f"rank {r}" for r in sorted(found))


def write_end(folder: AttemptFolder, end: End) -> None:
    """Record why the attempt ended."""
    # A full disk may have no room for it: the next start, or a later reader, finds out why again.
    with suppress(OSError):
        write_json(folder.ended, asdict(End(end.why, without_secrets(end.message))))


def read_end(folder: AttemptFolder) -> End | None:
    """Why it ended; None if that is not recorded."""
    return from_json(End, read_json(folder.ended)) if folder.ended.is_file() else None
