"""SIGTERM while Ray works for `sft train`, before any rank does."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.running import environment

PREPARES = """
import os, signal
from pathlib import Path
import ray
from launcher.cluster.connection import ray_session
from launcher.interruption import EndRequested, ended_on_request

def end(pid):
    os.kill(pid, signal.SIGTERM)
    signal.pause()

try:
    with ended_on_request(Path("STOP")), ray_session(1, 0, 100_000_000):
        ray.get(ray.remote(num_cpus=1)(end).remote(os.getpid()))
except EndRequested as request:
    print("ended by", request, "and Ray with it:", not ray.is_initialized())
"""


@pytest.mark.long
def test_sigterm_while_ray_works_ends_it_in_order_and_without_a_stack_of_ray(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PREPARES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path, env=environment())
    assert done.stdout == "ended by SIGTERM and Ray with it: True\n", done.stderr
    assert "SIGTERM received" not in done.stderr
