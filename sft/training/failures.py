"""Decides from an error of a rank whether the machine or the program failed. `restarts` decides what follows.

Imports no torch: the process that starts the ranks decides so too, and would wait for that import.
"""

from collections.abc import Sequence

_GROUP_ERROR = "torch.distributed.DistError"
"""What torch raises in a collective if another rank, or the group itself, is gone. An error of this class can only be
there if torch is imported; so its name is enough."""

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
    of_torch = any(f"{kind.__module__}.{kind.__name__}" == _GROUP_ERROR for kind in type(error).__mro__)
    return of_torch or isinstance(error, ConnectionError | TimeoutError) or _has_any(error, _OF_THE_GROUP)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether a lost peer, group, network or device is the cause, and not the data or the program."""
    return follows_from_a_loss(error) or _has_any(error, _OF_THE_DEVICE)


def describe_error(error: BaseException) -> str:
    """The error's type and the first line of its text."""
    first_line = (str(error).splitlines() or [""])[0][:500]
    return f"{type(error).__name__}: {first_line}"


def _has_any(error: BaseException, texts: Sequence[str]) -> bool:
    return any(part in str(error) for part in texts)
