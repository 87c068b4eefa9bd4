"""The GPUs of this machine, as `nvidia-smi` shows them; nothing is started on them.

0, NVIDIA H100 80GB HBM3, 535.161.08, 81559, 4, Disabled, 0  →  Gpu(0, "NVIDIA H100 80GB HBM3", …)
"""

import subprocess
from contextlib import suppress
from typing import NamedTuple

_FIELDS = (
    *("index", "name", "driver_version", "memory.total", "memory.used", "mig.mode.current"),
    "ecc.errors.uncorrected.volatile.total",
)
_NOT_TOLD = {"[N/A]", "[Not Supported]", "[Insufficient Permissions]", "N/A"}
"""What nvidia-smi prints for a number that the GPU does not have (ECC of a consumer card) or hides (memory, with
MIG)."""

_TIMEOUT_SECONDS = 15.0
"""With persistence mode off, the driver is loaded first, which takes seconds on a machine with eight GPUs."""


class Gpu(NamedTuple):
    """One GPU; None where nvidia-smi gives no number. `fault`: the error that it prints in place of a number."""

    number: int
    name: str
    driver: str
    total_mib: int | None
    used_mib: int | None
    is_split: bool
    """MIG is on."""
    num_ecc_errors: int | None
    """Uncorrected ones since the driver was loaded."""
    fault: str | None = None


class GpuQueryError(Exception):
    """The GPUs cannot be seen; the message says why."""


def query_gpus(timeout_seconds: float = _TIMEOUT_SECONDS) -> tuple[Gpu, ...]:
    """All GPUs of this machine, whatever `CUDA_VISIBLE_DEVICES` says.

    Raises:
        GpuQueryError: nvidia-smi is not installed, fails, or does not return in time.
    """
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise GpuQueryError(f"nvidia-smi cannot be started: {error.strerror}") from error
    try:
        text, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        assert process.stdout is not None
        process.stdout.close()
        # If the driver hangs, the process cannot even be killed, so there is no long wait for it.
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        raise GpuQueryError(f"nvidia-smi did not return within {timeout_seconds:g} s: the driver hangs") from None
    if process.returncode != 0:
        said = " ".join(text.split())[:200]
        raise GpuQueryError(f"nvidia-smi failed (exit code {process.returncode}): {said}")
    return parse_gpus(text)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """From the lines of `nvidia-smi --query-gpu=… --format=csv,noheader,nounits`.

    Raises:
        GpuQueryError: a line has other fields.
    """
    return tuple(_parse(line) for line in text.splitlines() if line.strip())


def _parse(line: str) -> Gpu:
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(_FIELDS) or not values[0].isdigit():
        raise GpuQueryError(f"nvidia-smi said: {line.strip()[:200]}")
    number, name, driver, total, used, mig, ecc = values
    faults = [v for v in values if v.startswith("[") and v not in _NOT_TOLD]
    total_mib, used_mib, num_ecc_errors = (int(v) if v.isdigit() else None for v in (total, used, ecc))
    fault = faults[0].strip("[]") if faults else None
    return Gpu(int(number), name, driver, total_mib, used_mib, mig == "Enabled", num_ecc_errors, fault)
