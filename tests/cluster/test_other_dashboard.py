"""Real Ray: the dashboard of another cluster on this machine, which does not know our processes, is never asked."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import ray
from ray._common.network_utils import find_free_port
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config
from ray.cluster_utils import Cluster
from ray.train.v2._internal.state.util import is_actor_alive
from ray.util.state.exception import RayStateApiException

from launcher.cluster.connection import ray_session

ANSWERS_SECONDS = 3
"""Ray looks for 20 seconds where a cluster has no dashboard at all."""


@pytest.fixture(scope="module", autouse=True)
def named() -> Iterator[str]:
    """The address of a cluster without a dashboard; another user's, which Ray finds first, has one."""
    # Ray's sockets are there, whose paths may have 107 bytes: those of pytest's folders are too long for it.
    with pytest.MonkeyPatch.context() as variables, tempfile.TemporaryDirectory(prefix="r") as folder:
        # Ray looks there for the cluster that was started last.
        variables.setenv("RAY_TMPDIR", folder)
        variables.delenv("RAY_ADDRESS", raising=False)
        arguments = {"num_cpus": 1, "include_dashboard": False, "dashboard_port": None}
        cluster = Cluster(initialize_head=True, head_node_args=arguments)
        with _other_cluster():
            yield cluster.address
        cluster.shutdown()


@contextmanager
def _other_cluster() -> Iterator[None]:
    ports = [f"--{of}={find_free_port()}" for of in ("port", "dashboard-port", "ray-client-server-port")]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--head", *ports, "--num-cpus=0"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Ray runtime started" in line for line in process.stdout)
        yield
        process.terminate()


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session is for the rest of its process, and sets variables and a switch of Ray for it."""
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER)
    with patch.dict(os.environ):
        yield
    # A Ray of our own asks for a token, and Ray goes on to ask for it in this process.
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


@ray.remote(num_cpus=0)
def _what_is_said_of_an_actor() -> str:
    """Asks as the process of Ray Train does that frees what a dead controller has left."""
    try:
        return "it is alive" if is_actor_alive("ab" * 16, ANSWERS_SECONDS) else "it is not known"
    except (RayStateApiException, ValueError):
        return "nobody answers"


@pytest.mark.long
def test_no_other_dashboard_is_asked_by_a_ray_of_our_own() -> None:
    with ray_session(num_cpus=1, num_gpus=0, object_store_bytes=100 << 20):
        assert ray.get(_what_is_said_of_an_actor.remote()) == "nobody answers"


@pytest.mark.long
def test_no_other_dashboard_is_asked_on_a_named_cluster(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", named)
    with ray_session(num_cpus=1, num_gpus=0, object_store_bytes=100 << 20):
        assert ray.get(_what_is_said_of_an_actor.remote()) == "nobody answers"
