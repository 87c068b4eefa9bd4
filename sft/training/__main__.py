"""`torchrun --nproc-per-node N -m sft.training CONFIG.yaml [section.field=value …]`: the job without Ray.

For debugging, and for places where Ray is not wanted. Under plain python it runs as one rank; with several, the data
must have been prepared (`sft prepare CONFIG`). The config is that of `sft train`; of its sections about machines, only
`cluster.hang_timeout_seconds` is used. The first rank holds the run folder's lock, as the driver does under Ray.
Each rank takes a GPU where torch sees any; `CUDA_VISIBLE_DEVICES= torchrun …` trains on CPUs.
"""

import argparse
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from sft.absolute_paths import absolute_paths
from sft.atomic_files import now_on_file_system
from sft.config import SftConfig
from sft.config_arguments import add_config_arguments
from sft.data.preparation import spread_over_threads
from sft.errors import TrainingError, UserError
from sft.job_config import load_job
from sft.model.loading import check_model
from sft.model.weight_values import check_values
from sft.printable import fit_message
from sft.run_claim import check_run_folder
from sft.run_folder import RunFolder
from sft.run_lock import run_lock
from sft.training.agreement import raise_on_all_ranks
from sft.training.attempt import begin_attempt
from sft.training.attempt_end import read_end
from sft.training.process import quiet_third_parties
from sft.training.watched_run import Limits, collective_timeout, run_watched
from sft.training.wishes import Wishes, forget_old_stop
from sft.training.workload import prepare_workload, refuse_to_spread
from sft.world import World

EXIT_FAILED, EXIT_WRONG_INPUT = 1, 2
EXIT_CODES = {"done": 0, "failed": EXIT_FAILED, "wrong input": EXIT_WRONG_INPUT, "stopped": 3}


def main(arguments: list[str]) -> int:
    """Run the job on this rank; returns the exit code."""
    parser = argparse.ArgumentParser("torchrun … -m sft.training", description="The job of `sft train`, without Ray.")
    add_config_arguments(parser)
    options = parser.parse_args(arguments)
    quiet_third_parties()
    world = _world()
    try:
        _refuse_shared_store()
        _refuse_too_many_ranks(world)
        job = load_job(options.config, options.overrides)
        config = absolute_paths(job.sft)
        notes = check_model(config.model, config.data.max_len_tokens)
        if world.is_first:
            for note in notes:
                _say(note)
        return _run(config, world, job.cluster.hang_timeout_seconds)
    except (UserError, TrainingError) as error:
        # What all ranks raise together, one of them says.
        if world.is_first or not error.is_everywhere:
            _say(str(error))
        return EXIT_WRONG_INPUT if isinstance(error, UserError) else EXIT_FAILED


def _run(config: SftConfig, world: World, hang_timeout_seconds: float) -> int:
    if world.on_gpu:
        torch.cuda.set_device(world.device)
    run = RunFolder(config.run.dir)
    wishes = Wishes(run.stop_file)
    wishes.listen()
    # No rank prepares data while the others hold their GPUs and wait.
    spread = refuse_to_spread if world.size > 1 else spread_over_threads
    with _process_group(world, collective_timeout(hang_timeout_seconds)), ExitStack() as held:
        with _raised_by_all():
            if world.is_first:
                for note in check_run_folder(run):
                    _say(note)
                held.enter_context(run_lock(run.lock, _end_at_once, _say))
                forget_old_stop(run.stop_file, now_on_file_system(run.path), _say)
                if not run.latest_attempt():
                    check_values(config.model.path)  # a run that has begun has trained on them
        # Behind the lock: this writes plans and config.yaml.
        with _raised_by_all():
            workload, _store, _plans = prepare_workload(config, spread=spread)
        attempt = begin_attempt(run, world)
        end = run_watched(config, world, workload, attempt, wishes, Limits(attempt.number, 0, hang_timeout_seconds))
        if end == "stopped" and world.is_first:
            run.stop_file.unlink(missing_ok=True)  # it is obeyed
    if end in ("wrong input", "failed") and world.is_first:
        _say(read_end(run)["message"])
    return EXIT_CODES[end]


def _refuse_shared_store() -> None:
    """No rank waits where it would wait in vain.

    Raises:
        UserError: on all ranks: torchrun would give a group that it starts again the key-value store of the dead one,
            in which ranks may find the addresses of the dead (pytorch/pytorch#135712).
    """
    num_restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0))
    if num_restarts > 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UserError(
            f"torchrun --max-restarts {num_restarts}: ranks that it starts again could wait for the dead ones "
            "(pytorch/pytorch#135712). Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment, or leave "
            "the option away.",
            is_everywhere=True,
        )


def _refuse_too_many_ranks(world: World) -> None:
    """A rank needs a GPU of its own.

    Raises:
        UserError: on all ranks of the machine.
    """
    num_gpus = torch.cuda.device_count() if world.on_gpu else world.local_size
    if world.local_size > num_gpus:
        raise UserError(
            f"{world.node}: torchrun starts {world.local_size} ranks, but torch sees {num_gpus} GPUs. Start as many as "
            "there are GPUs, or set CUDA_VISIBLE_DEVICES= to train on CPUs.",
            is_everywhere=world.local_rank > 0,  # one rank of the machine says it
        )


@contextmanager
def _process_group(world: World, timeout: timedelta) -> Iterator[None]:
    backend = "nccl" if world.on_gpu else "gloo"
    if "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        # One rank under plain python; torch's stubs do not name HashStore.
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    # Only of a group that is whole: with NCCL this waits for kernels, whose peers never come where a rank has failed.
    dist.destroy_process_group()


@contextmanager
def _raised_by_all() -> Iterator[None]:
    """A `UserError` of any rank is raised by all; who is done waits here for the others."""
    message = None
    try:
        yield
    except UserError as error:
        message = str(error)
    raise_on_all_ranks(message)


def _end_at_once(message: str) -> None:
    """Another job works in the run folder. The other ranks end with this one, for which their collectives wait."""
    _say(message)
    os._exit(EXIT_FAILED)


def _say(message: str) -> None:
    sys.stderr.write(f"{fit_message(message)}\n")
    sys.stderr.flush()


def _world() -> World:
    variable = os.environ.get
    local_rank = int(variable("LOCAL_RANK", 0))
    return World(
        int(variable("RANK", 0)),
        int(variable("WORLD_SIZE", 1)),
        local_rank,
        socket.gethostname(),
        int(variable("LOCAL_WORLD_SIZE", 1)),
        f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu",
    )


def _run_and_exit(arguments: list[str]) -> None:
    """Where the group was left, the process ends at once: the interpreter's own end would wait for it, as above."""
    try:
        code = main(arguments)
    except BaseException:  # the edge of the process
        traceback.print_exc()
        code = EXIT_FAILED
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _run_and_exit(sys.argv[1:])
