"""What a log of vLLM says about its end."""

import re
from pathlib import Path

from sft.printable import fit_to_print

_MOST_BYTES = 1 << 20
_LAST_LINES = 3
_MOST_CHARS = 400
_PREFIX = re.compile(r"^(?:\([^()]*pid=\d+\)\s*)?(?:(?:ERROR|WARNING|INFO|CRITICAL) [\d-]+ [\d:.]+ \[[^]]*\]\s*)?")
_ERROR = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception)\b: |^Value error, |\berror: |out of memory")
_POINTS_ELSEWHERE = ("See root cause", "See stack trace", "validation error for ", "leaked ")
TAKEN = "Address already in use"


def reason_in(log: Path) -> str:
    """The errors that vLLM names itself, else the last lines: its processes end one after the other, and the first one
    says why."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MOST_BYTES))
        text = file.read().decode(errors="replace")
    lines = [stripped for line in text.splitlines() if (stripped := _PREFIX.sub("", line).strip())]
    errors = [line for line in lines if _ERROR.search(line) and not any(other in line for other in _POINTS_ELSEWHERE)]
    found = [*dict.fromkeys(errors)][:_LAST_LINES] or lines[-_LAST_LINES:]
    return " ".join(fit_to_print(line[:_MOST_CHARS]) for line in found)


def is_port_taken(log: Path) -> bool:
    """Whether another process took the port before vLLM did."""
    return TAKEN in log.read_text(encoding="utf-8", errors="replace")
