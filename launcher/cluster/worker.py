"""The function that Ray Train runs in every worker: the curriculum of `sft`, with this worker's place in the world.

What a worker prints goes to its own file in the attempt's folder, since the console belongs to the driver.
"""

import os
import socket
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch

from launcher.cluster.capacity_watch import CapacityWatch
from launcher.cluster.staging import fetch_as_task
from launcher.cluster.torch_group import group_is_used
from sft.config import SftConfig
from sft.errors import TrainingError
from sft.printable import fit_to_print
from sft.ranks.torch_ranks import TorchRanks
from sft.run_folder import RunFolder
from sft.training.attempt import begin_attempt
from sft.training.control_signals import ControlSignals
from sft.training.prepared import Workload
from sft.training.process import quiet_third_parties
from sft.training.run_context import RunContext
from sft.training.watched_run import Limits, run_watched
from sft.world import World

_PAUSE_SECONDS = 30.0


def train(settings: dict[str, Any]) -> None:
    """Train on this worker; how it ended is written to the attempt's folder.

    A failure that a restart would not fix ends the attempt without an exception, because Ray restarts after one.
    """
    quiet_third_parties()
    config = SftConfig.model_validate(settings["config"])
    workload = Workload.from_json(settings["workload"])
    context = ray.train.get_context()
    world = World(
        context.get_world_rank(),
        context.get_world_size(),
        context.get_local_rank(),
        socket.gethostname(),
        context.get_local_world_size(),
        # Ray may show a worker GPUs that it was not given.
        _own_gpu() if "GPU" in settings["resources_per_worker"] else "cpu",
        config.train.sequence_parallel,
    )
    if world.on_gpu:
        torch.cuda.set_device(world.device)
    else:
        torch.set_num_threads(settings["num_threads"])
    run = RunFolder(config.run.dir)
    try:
        attempt = begin_attempt(run, TorchRanks(world))
    except TrainingError:
        return  # the driver sees for itself what is wrong with the run folder, in which nothing can be written
    except OSError:
        # This start cannot be recorded, and Ray begins the next one at once.
        time.sleep(_PAUSE_SECONDS)
        raise
    group_is_used(attempt.release)
    _redirect_output(attempt.folder.log(world.rank))
    capacity = CapacityWatch(
        world.size,
        settings["max_workers"],
        settings["resources_per_worker"],
        partial(attempt.events.add, "notice"),
        world.sequence_parallel,
    )
    signals = ControlSignals(run.stop_file, capacity.has_notice, capacity.has_room)
    try:
        run_watched(RunContext(config, workload, attempt, signals, fetch_as_task), Limits(**settings["limits"]))
    except BaseException:
        # Ray passes the traceback on; the log keeps it too, after what was printed before.
        sys.stderr.write(fit_to_print(traceback.format_exc()))
        sys.stderr.flush()
        raise
    group_is_used(None)


def _own_gpu() -> str:
    import ray.train.torch  # noqa: PLC0415  (more than half a second, which workers without GPUs do without)

    return str(ray.train.torch.get_device())


def _redirect_output(path: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
