"""Measures something on a node's GPUs in a process that ends, so that nothing stays on them."""

import json
import subprocess
from typing import Any

from sft.own_process import own_environment, own_module

_TIMEOUT_SECONDS = 90.0
_MOST_CHARS = 300


class NotMeasuredError(Exception):
    """There is no measurement; why, in words."""


def measure_in_process(module: str, *arguments: str) -> Any:
    """What the module prints in its last line, as JSON.

    Raises:
        NotMeasuredError: the process has failed, or did not end in time.
    """
    # GPUs by their order on the bus, as nvidia-smi numbers them.
    environment = own_environment(CUDA_DEVICE_ORDER="PCI_BUS_ID")
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        del environment["CUDA_VISIBLE_DEVICES"]  # Ray hides the GPUs from a process that holds none
    command = own_module(module, *arguments)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotMeasuredError(f"did not return within {_TIMEOUT_SECONDS:g} s") from None
    if done.returncode != 0:
        raise NotMeasuredError((done.stderr.strip().splitlines() or ["no reason"])[-1][:_MOST_CHARS])
    return json.loads(done.stdout.splitlines()[-1])
