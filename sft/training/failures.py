"""Decides from an error of a rank whether the machine or the program failed. `restarts` decides what follows."""

import re
from collections.abc import Sequence

from sft.ranks.process_group import GROUP_ERRORS
from sft.training.attempt import Attempt

_OF_THE_GROUP = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused", "gloo", "NCCL"),
    *("ncclUnhandledCudaError", "Socket Timeout", "Store is not available", "recvValue failed", "sendBytes failed"),
    # A group that was destroyed or aborted during a step.
    *("backend not set", "process group has not been initialized", "Invalid process group", "Invalid rank -1"),
)
"""Texts of errors that a rank meets because another rank, or the group, is gone."""

_OF_THE_DEVICE = (
    *("uncorrectable ECC", "unspecified launch failure", "device-side hardware", "CUDA error: device unavailable"),
    *("fallen off the bus", "CUDA driver error", "unable to get device handle", "busy or unavailable"),
    *("hardware error", "hardware stack error", "NVLink", "nvlink", "no CUDA-capable device is detected"),
    "system not yet initialized",
)
"""Texts of errors of the hardware or its driver."""


def follows_from_a_loss(error: BaseException) -> bool:
    """Whether the error follows from the loss of another rank, or of the group: this rank is not the cause."""
    return isinstance(error, GROUP_ERRORS) or _has_any(error, _OF_THE_GROUP)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether a lost peer, group, network or device is the cause, and not the data or the program."""
    return follows_from_a_loss(error) or _has_any(error, _OF_THE_DEVICE)


def describe_error(error: BaseException) -> str:
    """The error's type and the first line of its text."""
    first_line = (str(error).splitlines() or [""])[0][:500]
    return f"{type(error).__name__}: {first_line}"


def record_failure(attempt: Attempt, error: BaseException) -> None:
    """Record which error this rank met, and where."""
    heartbeat, what = attempt.heartbeat, describe_error(error)
    is_released = attempt.released.is_set()
    kind = "machine" if is_released or is_of_the_machine(error) else "program"
    # Sizes, addresses and process ids may differ between occurrences of the same error.
    alike = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", what)
    place = {"stage": heartbeat.stage, "step": heartbeat.step, "place": heartbeat.place}
    follows = is_released or follows_from_a_loss(error)
    attempt.events.add("failed", f"{heartbeat}: {what}", of=kind, follows=follows, error=alike, **place)


def _has_any(error: BaseException, texts: Sequence[str]) -> bool:
    return any(part in str(error) for part in texts)
