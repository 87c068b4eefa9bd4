"""Engines that train in turn: each is a group of ranks, forks of this process, that steps when it is told to."""

import contextlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.distributed as dist

from sft.config_file import build_config
from sft.data.collate import collate
from sft.engine.engines import ENGINES
from sft.ranks.torch_ranks import TorchRanks
from sft.schema import Pack
from sft.world import World

_SECONDS = 240
"""Longer than any step takes, and than an engine takes to be made."""


class Cost(NamedTuple):
    """Seconds of a step."""

    wall: float
    """Of the slowest rank."""
    cpu: float
    """Of all ranks together, with their threads."""


class EngineGroup:
    """Ranks with real ZeRO-3 over gloo, one thread each, that share the packs of a step evenly.

    The process that makes it may have used torch for no backward pass and with one thread only: else it cannot fork.
    """

    def __init__(self, model: Path, packs: Sequence[Pack], num_ranks: int, folder: Path) -> None:
        assert len(packs) % num_ranks == 0, "every rank has as many packs"
        self._folder = folder
        folder.mkdir()
        pipes = [multiprocessing.Pipe() for _ in range(num_ranks)]
        self._pids = [
            os.fork() or _run_rank(World(rank, num_ranks, rank), pipe, model, packs, folder)
            for rank, (_, pipe) in enumerate(pipes)
        ]
        self._pipes = [pipe for pipe, _ in pipes]
        for _, theirs in pipes:
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # that rank has failed
                pipe.send(False)
        for pid in self._pids:
            os.waitpid(pid, 0)

    def step(self) -> Cost:
        """One update.

        Raises:
            SystemExit: a rank has failed; with its traceback.
        """
        began = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(True)
        cpu = 0.0
        for pipe in self._pipes:
            try:
                if not pipe.poll(_SECONDS):
                    raise EOFError
                cpu += pipe.recv()
            except EOFError:
                logs = [log.read_text() for log in sorted(self._folder.glob("rank-*.log"))]
                raise SystemExit("\n".join(log for log in logs if log)[-4000:] or "a rank did not answer") from None
        return Cost(time.perf_counter() - began, cpu)


def _run_rank(world: World, pipe: Connection, model: Path, packs: Sequence[Pack], folder: Path) -> int:
    """The life of a rank; never returns."""
    code = 1
    log = os.open(folder / f"rank-{world.rank}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    try:
        _serve(world, pipe, model, packs, folder)
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _serve(world: World, pipe: Connection, model: Path, packs: Sequence[Pack], folder: Path) -> None:
    torch.set_num_threads(1)  # torch makes its pool of threads anew in a fork
    meeting = dist.FileStore(str(folder / "meeting"), world.size)
    dist.init_process_group("gloo", store=meeting, rank=world.rank, world_size=world.size)
    config = build_config(_content(model, packs, folder))
    engine = ENGINES["zero3"](config, config.stages[0].optimizer, str(model), TorchRanks(world))
    batches = [collate([pack]) for pack in packs]
    num_supervised = sum(batch.num_supervised_tokens for batch in batches)
    own = batches[world.rank :: world.size]
    dist.barrier()
    parent = os.getppid()
    while _is_told_to_step(pipe, parent):
        began = time.process_time()
        engine.train_step(own, num_supervised, 1e-5)
        pipe.send(time.process_time() - began)


def _is_told_to_step(pipe: Connection, parent: int) -> bool:
    """Wait for the word. A pipe does not end with its other side here, as other forks hold that, too."""
    while not pipe.poll(10):
        if os.getppid() != parent:
            return False
    return bool(pipe.recv())


def _content(model: Path, packs: Sequence[Pack], folder: Path) -> dict[str, Any]:
    length = max(len(pack.input_ids) for pack in packs)
    return {
        "run": {"name": "growth", "dir": str(folder / "run")},
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"sources": [{"name": "s", "path": "s.jsonl", "format": "messages"}], "max_len_tokens": length},
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-5}}],
        "train": {"pack_len_tokens": length, "packs_per_step": len(packs), "activation_checkpointing": False},
    }
