"""How fast each GPU of a node multiplies matrices: all workers wait for the slowest.

A process of its own measures them, so nothing stays on a GPU: `python -m launcher.preflight.gpu_speed cuda:0 cuda:1`
prints `{"cuda:0": 610.2, "cuda:1": 402.7}`, in TFLOP/s.
"""

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence

from launcher.preflight.findings import About, Finding, same_on_many
from launcher.preflight.gpu_process import NotMeasuredError, measure_in_process

_NUM_WARM, _NUM_TIMED = 3, 5
_SIZE = {"cuda": 8192, "cpu": 256}
"""Rows of the matrices: on a GPU large enough that it computes all the time."""
_LEAST_OF_MEDIAN = 0.85
"""GPUs of one kind differ by a few percent; one that throttles, by more."""

Speeds = Mapping[str, float]
"""device → TFLOP/s."""


def measure_speeds(devices: Sequence[str]) -> Speeds | str:
    """The speed of each device of this machine, measured in a process that ends; or why there is none, in words."""
    try:
        speeds: dict[str, float] = measure_in_process("launcher.preflight.gpu_speed", *devices)
    except NotMeasuredError as error:
        return f"the GPUs cannot multiply matrices: {error}"
    return speeds


def find_slow(speeds: Mapping[str, Speeds | str]) -> list[Finding]:
    """Which GPUs are slow beside the median of all, and which cannot compute; node → what it measured."""
    told = same_on_many(About.GPUS, {node: found if isinstance(found, str) else None for node, found in speeds.items()})
    measured = {node: found for node, found in speeds.items() if not isinstance(found, str)}
    everything = [speed for of_node in measured.values() for speed in of_node.values()]
    if not everything:
        return told
    median = statistics.median(everything)
    for node, of_node in measured.items():
        slow = {device: speed for device, speed in of_node.items() if speed < _LEAST_OF_MEDIAN * median}
        if slow:
            which = ", ".join(f"GPU {device.partition(':')[2]} {speed:.0f}" for device, speed in slow.items())
            text = (
                f"{node}: slow at the product of matrices, in TFLOP/s: {which} (the median of all is {median:.0f}). "
                "All workers wait for the slowest. Look at its heat, power and clocks: nvidia-smi -q -d PERFORMANCE"
            )
            told.append(Finding(About.GPUS, text, (node,), is_error=False))
    return told


def measure(device: str) -> float:
    """TFLOP/s of the product of two square matrices, in bfloat16 on a GPU: the median of several."""
    import torch  # noqa: PLC0415  (seconds; the driver imports this module and measures nothing)

    kind = device.partition(":")[0]
    size = _SIZE[kind]
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16 if kind == "cuda" else torch.float32)
    seconds = []
    for _ in range(_NUM_WARM + _NUM_TIMED):
        started = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds[_NUM_WARM:]) / 1e12


if __name__ == "__main__":
    sys.stdout.write(json.dumps({device: measure(device) for device in sys.argv[1:]}) + "\n")
