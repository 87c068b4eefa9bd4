"""Starts the ranks of one attempt after another, as forks of this process, which has imported everything: `python -m
tests.chaos.zygote` reads a JSON line for each attempt and answers with the ranks' exit codes.

It does to a group what Ray Train does: when a rank ends with an error, the others are killed a little later.
"""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from sft.config import SftConfig
from sft.run_folder import RunFolder
from sft.training.attempt import begin_attempt
from sft.training.process import quiet_third_parties
from sft.training.watched_run import Limits, run_watched
from sft.training.wishes import Wishes
from sft.training.workload import Workload
from sft.world import World
from tests.chaos.faults import install

DONE, ENDED, FAILED = 0, 5, 1
_PATIENCE_SECONDS = 3.0
_LONGEST_SECONDS = 120.0


def main() -> None:
    quiet_third_parties()
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps(run_group(request)) + "\n")
        sys.stdout.flush()


def run_group(request: dict[str, Any]) -> list[int]:
    """Fork the ranks, wait for them, and return the exit code of each; a signal's number is negative."""
    pids = [os.fork() or run_rank(rank, request) for rank in range(request["size"])]
    codes: dict[int, int] = {}
    deadline = time.monotonic() + _LONGEST_SECONDS
    while len(codes) < len(pids):
        for rank in set(range(len(pids))) - codes.keys():
            pid, status = os.waitpid(pids[rank], os.WNOHANG)
            if pid:
                codes[rank] = os.waitstatus_to_exitcode(status)
                if codes[rank] != DONE:
                    deadline = min(deadline, time.monotonic() + _PATIENCE_SECONDS)
        if time.monotonic() > deadline:
            for rank in set(range(len(pids))) - codes.keys():
                os.kill(pids[rank], signal.SIGKILL)
        time.sleep(0.01)
    return [codes[rank] for rank in range(len(pids))]


def run_rank(rank: int, request: dict[str, Any]) -> int:
    """The life of a rank; never returns."""
    try:
        log = os.open(f"{request['log']}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        install(request["faults"][rank], request["spoiled_steps"])
        size = request["size"]
        dist.init_process_group(
            "gloo",
            init_method=f"file://{request['log']}.rendezvous",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=60),
        )
        config = SftConfig.model_validate(request["config"])
        run, world = RunFolder(config.run.dir), World(rank, size, rank, local_size=size)
        workload = Workload.from_json(request["workload"])
        attempt = begin_attempt(run, world)
        limits = Limits(1, -1, request["hang_timeout_seconds"])
        end = run_watched(config, world, workload, attempt, Wishes(run.stop_file), limits)
        code = DONE if end == "done" else ENDED
    except BaseException:
        traceback.print_exc()
        code = FAILED
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
