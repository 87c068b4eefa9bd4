"""The resident memory of this process, now and at its peak since the peak was last forgotten, in MiB."""

from pathlib import Path

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory_now() -> float:
    """What is resident."""
    return _field("VmRSS")


def memory_peak() -> float:
    """The most that was."""
    return _field("VmHWM")


def forget_peak() -> None:
    """From here on, it is the peak of what follows: what imports took in between does not count."""
    _FORGET.write_text("5")


def _field(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
