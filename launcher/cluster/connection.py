"""Connects to the Ray cluster that `RAY_ADDRESS` names, or starts one on this machine for the duration of the job."""

import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray._private.ray_constants
import ray._private.worker

import launcher
from launcher.cluster.head import answers_within
from launcher.cluster.ray_folder import choose_ray_folder
from launcher.plan import JobPlan
from sft.errors import UserError

_OBJECT_STORE_BYTES = 200 * 1024**2
"""In training, no data goes through Ray, so its object store is little more than the minimum that Ray accepts."""

# One CPU is left for Ray Train's controller and for the sample answers at the end.
_EXTRA_CPUS = 1

_ELASTIC_START_SECONDS = 5

RECONNECT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's setting for how long its processes wait for a control store (GCS) that does not answer."""

_OWN_RAY = {
    # Its control store is never restarted.
    RECONNECT_VARIABLE: "10",
    # Ray would start a worker for each CPU that no task takes: all of ours have an environment of their own.
    "RAY_prestart_worker_first_driver": "0",
    # How often Ray Train asks whether its workers live. On a cluster it is 2 seconds: that is also how long Ray Train
    # waits to hear which worker is lost. On one machine it hears so at once.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Settings of a Ray that we start, where the user has set no others."""

_ESSENTIAL = {"gcs_server": "control store (GCS)", "raylet": "raylet"}
"""The processes that a job needs. What Ray's other processes do is not needed here."""

_NUM_NODES = "SFT_RAY_NODES"
"""The environment variable with the number of nodes that the cluster will have. Whoever starts a cluster for one job
sets it, because the nodes join one by one."""

_HEAD_SECONDS = 5.0

_JOIN_SECONDS = 180
"""After this time the job starts with the nodes that have joined, if they have room for it."""


# Ray Train asks the dashboard whether its controller is alive, and removes the workers if it is not known there. Where
# nothing says which dashboard, Ray takes that of any cluster on the machine, even one that never knew the controller.
_NO_DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
"""For the processes of a Ray of our own, which has none: nothing answers there."""


class Session(NamedTuple):
    """A connection to Ray."""

    where: str
    """Its name in messages."""
    address: str
    """Of its control store (GCS), as host:port."""
    is_own: bool
    """Whether this process started it, and ends it when it disconnects."""
    note: str | None = None
    """What the user should know about it."""


@contextmanager
def ray_cluster(plan: JobPlan) -> Iterator[Session]:
    """A connection to a cluster with room for the job.

    Raises:
        UserError: the cluster cannot be reached, or can never hold the minimum number of workers.
    """
    if plan.is_elastic:
        # Ray checks its nodes every 20 seconds, and counts on a vanished one until then. Meanwhile a group is placed at
        # once or not at all.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_ELASTIC_START_SECONDS))
    with ray_session(plan.cpus + _EXTRA_CPUS, plan.gpus, _OBJECT_STORE_BYTES) as session:
        _check_room(plan, session.where)
        yield session


@contextmanager
def ray_session(num_cpus: int, num_gpus: int, object_store_bytes: int) -> Iterator[Session]:
    """A connection to the cluster at `RAY_ADDRESS`, else to one of this size on this machine.

    Raises:
        UserError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS")
    quiet: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
    handler = signal.getsignal(signal.SIGTERM)
    folder = None if address else choose_ray_folder()
    if address and not answers_within(address, _HEAD_SECONDS):
        raise UserError(
            f"The Ray cluster at {address} (RAY_ADDRESS) cannot be reached: nothing answers there. Start its head, or "
            "name the address that `ray start --head` has printed."
        )
    try:
        # Ray's workers look for modules in this process's working folder first. In the program's folder they import
        # what the driver imports, whatever the user's folder holds.
        with chdir(Path(launcher.__path__[0]).parent):
            if address:
                ray.init(address=address, runtime_env=_names_itself(address), **quiet)
            else:
                _listen_on_loopback_only()
                for name, value in _OWN_RAY.items():
                    os.environ.setdefault(name, value)
                if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
                    # Otherwise Ray writes one to the home folder, which may be read-only.
                    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
                os.environ.update(_NO_DASHBOARD)
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    num_gpus=num_gpus or None,
                    object_store_memory=object_store_bytes,
                    include_dashboard=False,
                    _temp_dir=folder,
                    # Workers find packages where this process finds them, even packages that are not installed.
                    runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}},
                    **quiet,
                )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from error
    _take_sigterm_back(handler)
    try:
        note = _wait_for_nodes(int(os.environ[_NUM_NODES])) if address and _NUM_NODES in os.environ else None
        where = f"the Ray cluster at {address}" if address else "this machine"
        yield Session(where, ray.get_runtime_context().gcs_address, not address, note)
    finally:
        ray.shutdown()


def _names_itself(address: str) -> dict[str, Any]:
    """Ray's `runtime_env` for processes on this cluster that look for its dashboard."""
    return {} if address == "auto" else {"env_vars": {"RAY_ADDRESS": address}}


def _take_sigterm_back(before: Any) -> None:
    """Ray has installed two handlers: one in Python, and one in C++ that ends the process with a C++ stack."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before if callable(before) else signal.getsignal(signal.SIGTERM))


def lost_process() -> str | None:
    """Which process of the Ray that this process started is gone, and how, in words; None while all are alive."""
    node: Any = ray._private.worker._global_node
    for name, process in node.dead_processes() if node is not None else ():
        if name in _ESSENTIAL:
            code = process.returncode
            how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return f"Ray's {_ESSENTIAL[name]} on this machine was {how}"
    return None


def _listen_on_loopback_only() -> None:
    """For a cluster on this machine alone. This is Ray's own switch for laptops, which Ray reads at import."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that Ray starts
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False


def _wait_for_nodes(num_nodes: int) -> str | None:
    deadline = time.monotonic() + _JOIN_SECONDS
    while True:
        names = sorted(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])
        if len(names) >= num_nodes:
            return None
        if time.monotonic() > deadline:
            return f"Ray has {len(names)} of {num_nodes} nodes after {_JOIN_SECONDS} s: {', '.join(names)}"
        time.sleep(0.5)


def _check_room(plan: JobPlan, where: str) -> None:
    there: dict[str, float] = ray.cluster_resources()
    cpus = plan.cpus * plan.min_workers // plan.max_workers
    gpus = plan.gpus * plan.min_workers // plan.max_workers
    if there.get("CPU", 0) < cpus or there.get("GPU", 0) < gpus:
        raise UserError(
            f"cluster: {plan.min_workers} workers need {cpus} CPUs and {gpus} GPUs; "
            f"{where} has {there.get('CPU', 0):.0f} and {there.get('GPU', 0):.0f}. "
            "Ask for fewer workers, or join more nodes to the cluster."
        )
