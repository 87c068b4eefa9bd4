"""`sft submit ray`: a job runs on a Ray cluster, independent of the machine that submits it.

The cluster gets a small folder with the resolved config, and with this package if `--package` says so. It runs `sft
train` in that folder, by default on its head node.
"""

import itertools
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import requests
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from launcher.exit_codes import DONE, INTERRUPTED
from launcher.submission.portable_job import ENVIRONMENT, train_command
from launcher.submission.ray_job_log import follow
from launcher.submission.shipped_package import read_package
from sft.errors import UserError
from sft.job_config import JobConfig

_CONFIG = "config.yaml"
_RUN_DIR = "sft_run_dir"


class Request(NamedTuple):
    """What is sent to the cluster. `files`: the folder in which the entrypoint runs, path → content."""

    entrypoint: str
    resources: dict[str, float]
    metadata: dict[str, str]
    files: dict[str, bytes]


def plan_request(job: JobConfig, config: str, package: Path | None) -> Request:
    """The request for a job.

    Args:
        job: the job.
        config: its config as the cluster reads it.
        package: a wheel or a checkout to send along. None: the cluster has the package.

    Raises:
        UserError: the package cannot be sent.
    """
    entrypoint = shlex.join(train_command(job, _CONFIG, is_shipped=package is not None))
    files = {_CONFIG: config.encode()} | (read_package(package) if package else {})
    return Request(entrypoint, dict(job.ray.driver_resources), {_RUN_DIR: str(job.sft.run.dir)}, files)


def describe(request: Request) -> str:
    """What is sent, for people to read: two YAML documents; the second is the config."""
    num_bytes = sum(map(len, request.files.values()))
    shipped = " and the packages sft and launcher" if len(request.files) > 1 else ""
    content = {
        "entrypoint": request.entrypoint,
        "resources": request.resources,
        "env_vars": ENVIRONMENT,
        "metadata": request.metadata,
        "working_dir": f"{_CONFIG}{shipped}: {len(request.files)} files, {num_bytes:,} bytes",
    }
    return f"{yaml.safe_dump(content, sort_keys=False, width=120)}---\n{request.files[_CONFIG].decode()}"


def submit(request: Request, name: str, address: str | None, is_followed: bool) -> int:
    """Start a job on the cluster, say how to follow and stop it, and follow it; returns the exit code.

    Args:
        request: what is sent.
        name: the job's id is this name and a number that no other job of the cluster has.
        address: of the cluster's dashboard. Default: `RAY_API_SERVER_ADDRESS` or `RAY_ADDRESS`, as Ray's own client.
        is_followed: whether to print the job's log until it ends. The exit code is then the job's own.

    Raises:
        UserError: the cluster cannot be reached, refuses the job, or already runs it.
    """
    # Ray's client logs its uploads and each closed connection.
    logging.disable(logging.WARNING)
    with _explained(address):
        client = _connect(address)
        job_id = _choose_id(client.list_jobs(), name, request.metadata[_RUN_DIR])
        _send(client, request, job_id)
        where = f"{job_id} --address {client.get_address()}"
        sys.stderr.write(
            f"Job {job_id} is on the cluster. It does not need this machine.\n"
            f"  follow          ray job logs --follow {where}\n"
            f"  save, and stop  ray job stop {where}\n"
            f"  its state       sft status {shlex.quote(request.metadata[_RUN_DIR])}, where this folder is seen\n"
        )
        try:
            return follow(client, job_id) if is_followed else DONE
        except KeyboardInterrupt:
            sys.stderr.write(f"\nNo longer followed. Job {job_id} goes on.\n")
            return INTERRUPTED


def _connect(address: str | None) -> JobSubmissionClient:
    if address is None and not (os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")):
        raise UserError(
            "Which cluster? Give --address http://HEAD_NODE:8265 (the dashboard's), or set RAY_API_SERVER_ADDRESS. "
            "Where that port cannot be reached: ssh -L 8265:HEAD_NODE:8265 HEAD_NODE, then http://127.0.0.1:8265."
        )
    if address is not None:
        if not address.startswith(("http://", "https://")):
            raise UserError(f"--address {address}: give the URL of Ray's dashboard, such as http://HEAD_NODE:8265.")
        # Ray's client prefers its variables to its arguments.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
    return JobSubmissionClient()


def _choose_id(jobs: Iterable[JobDetails], name: str, run_dir: str) -> str:
    taken = set()
    for job in jobs:
        if (job.metadata or {}).get(_RUN_DIR) == run_dir and not job.status.is_terminal():
            raise UserError(
                f"The run in {run_dir} is under way on this cluster: job {job.submission_id} is {job.status}. "
                f"Follow it with `ray job logs --follow {job.submission_id}`, or stop it first with `ray job stop`."
            )
        taken.add(job.submission_id)
    return next(job_id for number in itertools.count(1) if (job_id := f"{name}-{number}") not in taken)


def _send(client: JobSubmissionClient, request: Request, job_id: str) -> None:
    resources = dict(request.resources)
    with tempfile.TemporaryDirectory(prefix="sft-submit-") as folder:
        for name, content in request.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.submit_job(
            entrypoint=request.entrypoint,
            submission_id=job_id,
            runtime_env={"working_dir": folder, "env_vars": ENVIRONMENT},
            metadata=request.metadata,
            entrypoint_num_cpus=resources.pop("CPU", None),
            entrypoint_num_gpus=resources.pop("GPU", None),
            entrypoint_resources=resources or None,
        )


@contextmanager
def _explained(address: str | None) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (AuthenticationError, ConnectionError, requests.RequestException, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:500]
        raise UserError(f"Ray's Jobs API at {address or 'the address in the environment'}: {reason}") from error
