"""`torchrun --nproc-per-node N -m sft.training CONFIG.yaml [section.field=value …]`: the job without Ray.

For debugging, and for sites that do not want Ray. Under plain python it runs as one rank; with several, the data must
have been prepared (`sft prepare CONFIG`). The config is that of `sft train`; of its sections about machines, only
`cluster.gpus_per_worker` and `cluster.hang_timeout_seconds` are used. The first rank holds the run folder's lock, as
the driver does under Ray.
"""

import argparse
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch

from sft.absolute_paths import absolute_paths
from sft.atomic_files import now_on_file_system
from sft.config import SftConfig
from sft.config_arguments import add_config_arguments, overrides_of
from sft.data.block_preparer import prepare_in_threads
from sft.errors import TrainingError, UserError
from sft.guarded_output import going_on_without_output, output_guarded
from sft.job_config import load_job
from sft.model.cpu_arithmetic import SLOW, computes_bfloat16
from sft.model.loading import check_model
from sft.model.weight_values import check_values
from sft.monitoring.alerts import Kind, alerts_posted
from sft.printable import fit_message
from sft.ranks.agreement import raise_together
from sft.ranks.process_group import is_left, process_group
from sft.ranks.ranks import Ranks
from sft.ranks.torch_ranks import TorchRanks
from sft.run_claim import check_run_folder
from sft.run_folder import RunFolder
from sft.run_lock import run_lock
from sft.sinks.processes import sinks_fed
from sft.sinks.table import check_sinks
from sft.training.attempt import begin_attempt
from sft.training.attempt_end import end_of_last_attempt
from sft.training.control_signals import ControlSignals, remove_stale_stop
from sft.training.hang_watch import collective_timeout
from sft.training.process import quiet_third_parties
from sft.training.run_context import RunContext
from sft.training.watched_run import Limits, run_watched
from sft.training.worker_variables import set_variables
from sft.training.workload import prepare_workload, refuse_to_prepare
from sft.world import World

EXIT_FAILED, EXIT_WRONG_INPUT = 1, 2
_ALERTS: dict[str, Kind] = {"done": "finished", "stopped": "stopped", "wrong input": "failed", "failed": "failed"}
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
        job = load_job(options.config, overrides_of(options))
        set_variables(job.sft.train.deterministic)
        world = with_device(world, wants_gpu=job.cluster.gpus_per_worker > 0)
        config = absolute_paths(job.sft)
        world = with_groups(world, config.train.sequence_parallel)
        notes = check_model(config.model, config.data.max_len_tokens)
        if world.is_first:
            for note in (*job.notes, *notes):
                _say(note)
            if config.model.dtype == "bfloat16" and not world.on_gpu and not computes_bfloat16():
                _say(f"{world.node}: {SLOW}")
        return _run(config, world, job.cluster.hang_timeout_seconds)
    except (UserError, TrainingError) as error:
        # If all ranks raise it together, only one prints it.
        if world.is_first or not error.is_everywhere:
            _say(str(error))
        return EXIT_WRONG_INPUT if isinstance(error, UserError) else EXIT_FAILED


def _run(config: SftConfig, world: World, hang_timeout_seconds: float) -> int:
    if world.on_gpu:
        torch.cuda.set_device(world.device)
    run = RunFolder(config.run.dir)
    signals = ControlSignals(run.stop_file)
    signals.listen()
    # No rank prepares data while the others hold their GPUs and wait.
    executor = refuse_to_prepare if world.size > 1 else prepare_in_threads
    ranks = TorchRanks(world)
    with process_group(world, collective_timeout(hang_timeout_seconds)), ExitStack() as held:
        with _raised_by_all(ranks):
            if world.is_first:
                for note in check_run_folder(run):
                    _say(note)
                check_sinks(config.logging)
                held.enter_context(run_lock(run.lock, _end_at_once, _say))
                post_end = held.enter_context(alerts_posted(config.alerts, run, config.run.name))
                remove_stale_stop(run.stop_file, now_on_file_system(run.path), _say)
                if not run.latest_attempt():
                    check_values(config.model.path)  # a run that has begun has already trained on them
        # Under the lock: this writes plans and config.yaml.
        with _raised_by_all(ranks):
            workload, _store, _plans = prepare_workload(config, executor=executor)
        before = end_of_last_attempt(run) if world.is_first and _is_restart(run) else None
        attempt = begin_attempt(run, ranks)
        if before is not None:
            why = before.message or before.why
            attempt.events.add("restarted", f"attempt {attempt.number - 1} ended: {why}")
        if world.is_first:
            held.enter_context(sinks_fed(config, attempt.number))
        limits = Limits(attempt.number, 0, hang_timeout_seconds)
        end = run_watched(RunContext(config, workload, attempt, signals), limits)
        if world.is_first:
            post_end(_ALERTS[end], end_of_last_attempt(run).message)
            if end in ("done", "stopped"):
                run.stop_file.unlink(missing_ok=True)  # it has been obeyed, or came when all was trained
    if end in ("wrong input", "failed") and world.is_first:
        _say(end_of_last_attempt(run).message)
    return EXIT_CODES[end]


def _refuse_shared_store() -> None:
    """Refuse a setting of torchrun with which ranks could wait in vain.

    Raises:
        UserError: on all ranks: torchrun would give a restarted group the key-value store of the dead one, in which
            ranks may find addresses of dead ranks (pytorch/pytorch#135712).
    """
    num_restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0))
    if num_restarts > 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UserError(
            f"torchrun --max-restarts {num_restarts}: ranks that it starts again could wait for the dead ones "
            "(pytorch/pytorch#135712). Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment, or omit "
            "the option.",
            is_everywhere=True,
        )


def _is_restart(run: RunFolder) -> bool:
    """Whether torchrun has started ranks before, which have come so far as to begin an attempt."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0 and run.latest_attempt() > 0


def with_device(world: World, wants_gpu: bool) -> World:
    """The rank with its device, as the config says, whatever torch sees.

    Raises:
        UserError: on all ranks of the machine: it has no GPU for each of them.
    """
    num_gpus = torch.cuda.device_count()
    if not wants_gpu:
        if num_gpus and world.is_first:
            _say(f"Training on CPUs (cluster.gpus_per_worker: 0): {world.node} has {num_gpus} GPUs, which stay free")
        # Set before anything asks CUDA for them, so that no library of this process finds one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return world
    if world.local_size > num_gpus:
        raise UserError(
            f"{world.node}: torchrun starts {world.local_size} ranks with a GPU each (cluster.gpus_per_worker: 1), but "
            f"torch sees {num_gpus} GPUs. Start as many as that, or set cluster.gpus_per_worker=0 to train on CPUs.",
            is_everywhere=world.local_rank > 0,  # only one rank of the machine prints it
        )
    return replace(world, device=f"cuda:{world.local_rank}")


def with_groups(world: World, sequence_parallel: int) -> World:
    """The rank with the number of ranks that share its micro-batches, as the config says.

    Raises:
        UserError: on all ranks: they cannot be divided into groups.
    """
    if world.size % sequence_parallel:
        raise UserError(
            f"train.sequence_parallel: {sequence_parallel}: this many ranks share each micro-batch, but torchrun "
            f"starts {world.size}, which is not a multiple of it. Start a multiple of it on every node.",
            is_everywhere=True,
        )
    return replace(world, sequence_parallel=sequence_parallel)


@contextmanager
def _raised_by_all(ranks: Ranks) -> Iterator[None]:
    """A `UserError` of any rank is raised by all; ranks that are done wait here for the others."""
    message = None
    try:
        yield
    except UserError as error:
        message = str(error)
    raise_together(ranks, message)


def _end_at_once(message: str) -> None:
    """Exit because another job works in the run folder. The other ranks end with it: their collectives need it."""
    _say(message)
    os._exit(EXIT_FAILED)


def _say(message: str) -> None:
    sys.stderr.write(f"{fit_message(message)}\n")
    sys.stderr.flush()


def _world() -> World:
    variable = os.environ.get
    return World(
        int(variable("RANK", 0)),
        int(variable("WORLD_SIZE", 1)),
        int(variable("LOCAL_RANK", 0)),
        socket.gethostname(),
        int(variable("LOCAL_WORLD_SIZE", 1)),
    )


def _run_and_exit(arguments: list[str]) -> None:
    """Run and exit. If the group was left, exit at once: the interpreter's own exit would wait for the group."""
    with output_guarded(), going_on_without_output(on_gone=lambda: None):
        try:
            code = main(arguments)
        except BaseException:  # the process ends here: no error may go unreported
            traceback.print_exc()
            code = EXIT_FAILED
        if is_left():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _run_and_exit(sys.argv[1:])
