"""Connects to the Ray cluster that `RAY_ADDRESS` names, or starts one on this machine for the time of the job."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import ray._private.ray_constants

from launcher.console import say_error
from launcher.plan import JobPlan
from sft.errors import UserError
from sft.training.wishes import ask_by_signal

_OBJECT_STORE_BYTES = 200 * 1024**2
"""In training, data does not travel through Ray, so its store is kept at little more than the least it accepts."""

# One CPU is left for Ray Train's controller and for the sample answers at the end.
_EXTRA_CPUS = 1

_ELASTIC_START_SECONDS = 5

_NUM_NODES = "SFT_RAY_NODES"
"""The variable in which whoever starts a cluster for one job says how many nodes it will have: they join one by one."""

_JOIN_SECONDS = 180
"""After that the job begins with the nodes that are there, if they have room for it."""


@contextmanager
def ray_cluster(plan: JobPlan) -> Iterator[str]:
    """A connection to a cluster with room for the job; yields what to call it.

    Raises:
        UserError: the cluster cannot be reached, or can never hold the least number of workers.
    """
    if plan.is_elastic:
        # Ray counts on a node that has vanished until it looks again, every 20 seconds. Meanwhile a group is placed at
        # once or not at all.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_ELASTIC_START_SECONDS))
    with ray_session(plan.cpus + _EXTRA_CPUS, plan.gpus, _OBJECT_STORE_BYTES) as where:
        _check_room(plan, where)
        yield where


@contextmanager
def ray_session(num_cpus: int, num_gpus: int, object_store_bytes: int) -> Iterator[str]:
    """A connection to the cluster at `RAY_ADDRESS`, else to one of this size on this machine; yields what to call it.

    Raises:
        UserError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS")
    quiet: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            _listen_on_loopback_only()
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=num_gpus or None,
                object_store_memory=object_store_bytes,
                include_dashboard=False,
                # Workers find the packages where this process does, also where they are not installed.
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}},
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from error
    _take_sigterm_back(handler)
    try:
        if address and _NUM_NODES in os.environ:
            _wait_for_nodes(int(os.environ[_NUM_NODES]))
        yield f"the Ray cluster at {address}" if address else "this machine"
    finally:
        ray.shutdown()


def _take_sigterm_back(before: Any) -> None:
    """Ray has taken it twice: in Python, and below that, where it ends the process with a stack of C++."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before if callable(before) else signal.getsignal(signal.SIGTERM))


def _listen_on_loopback_only() -> None:
    """For a cluster of this machine alone. It is Ray's own switch for laptops, which is read when Ray is imported."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that Ray starts
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False


def _wait_for_nodes(num_nodes: int) -> None:
    deadline = time.monotonic() + _JOIN_SECONDS
    while True:
        # Ray's stubs leave this function without types.
        names = sorted(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])  # type: ignore[no-untyped-call]
        if len(names) >= num_nodes:
            return
        if time.monotonic() > deadline:
            say_error(f"Ray has {len(names)} of {num_nodes} nodes after {_JOIN_SECONDS} s: {', '.join(names)}")
            return
        time.sleep(0.5)


@contextmanager
def signals_ask_to_stop(stop_file: Path) -> Iterator[None]:
    """SIGTERM, SIGUSR1 and Ctrl-C ask for a stop with a checkpoint, by the stop file; a second one ends the process.

    Enter it after Ray has started, which installs a handler of its own. A file that a person has made stays as it is.
    """
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        try:
            ask_by_signal(stop_file)
        except OSError as error:
            sys.stderr.write(f"{stop_file} cannot be made: {error.strerror}. Nobody is asked to stop.\n")
            return
        sys.stderr.write("stopping after this step, with a checkpoint; the same command goes on\n")
        for other in numbers:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_room(plan: JobPlan, where: str) -> None:
    # Ray's stubs leave this function without types.
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = plan.cpus * plan.min_workers // plan.max_workers
    gpus = plan.gpus * plan.min_workers // plan.max_workers
    if there.get("CPU", 0) < cpus or there.get("GPU", 0) < gpus:
        raise UserError(
            f"cluster: {plan.min_workers} workers need {cpus} CPUs and {gpus} GPUs; "
            f"{where} has {there.get('CPU', 0):.0f} and {there.get('GPU', 0):.0f}. "
            "Ask for fewer workers, or join more nodes to the cluster."
        )
