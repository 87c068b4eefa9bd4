"""Groups of ranks as forks of a warm process (`tests.warm_process`). To import takes seconds, to fork milliseconds.

It does to a group what Ray Train does: when a rank ends with an error, the others are killed a little later.
`tests.forked_ranks` is how tests ask for it.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping

from sft.engine.lean_deepspeed import lean_deepspeed
from sft.model.layout import try_layout
from sft.model.tiny_model import tiny_config
from sft.training import watched_run  # noqa: F401
from sft.training.process import quiet_third_parties
from tests.forked_ranks import DONE, FAILED

_PATIENCE_SECONDS = 3.0


def warm_up() -> None:
    """Import what ranks and commands import, and make what the first model of a process makes."""
    quiet_third_parties()
    with lean_deepspeed():  # as ranks import it
        importlib.import_module("sft.engine.zero3")
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")  # what the first step would import
    torch.set_num_threads(1)
    # A model is tried, since the first one of a process makes tables for all.
    get_model_conversion_mapping(LlamaForCausalLM(tiny_config(LlamaConfig())))
    assert try_layout(LlamaConfig(), "packed") is None


def serve_groups(connection: socket.socket) -> None:
    """Run a group for each line of JSON, and answer with its exit codes, until nobody asks any more."""
    with connection.makefile("rw") as stream:
        for line in stream:
            stream.write(json.dumps(run_group(json.loads(line))) + "\n")
            stream.flush()


def run_group(request: dict[str, Any]) -> list[int]:
    """Fork the ranks, wait for them, and return the exit code of each; a signal's number is negative."""
    with contextlib.suppress(Exception):  # else each rank says why
        importlib.import_module(request["module"])
    gc.freeze()  # else each rank's collections look at all this again, and copy it
    pids = [os.fork() or run_rank(rank, request) for rank in range(request["size"])]
    codes: dict[int, int] = {}
    deadline = time.monotonic() + request["longest_seconds"]
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
        os.environ.update(request["variables"])
        torch.set_num_threads(1)  # torch makes its pool anew in a fork, which several threads may not do at once
        size = request["size"]
        dist.init_process_group(
            "gloo",
            init_method=f"file://{request['log']}.rendezvous",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=60),
        )
        function = getattr(importlib.import_module(request["module"]), request["function"])
        code = function(rank, size, *request["arguments"]) or DONE
    except BaseException:
        traceback.print_exc()
        code = FAILED
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(code)
