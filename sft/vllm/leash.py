"""The process between `sft evaluate` and vLLM. Whoever holds the other end of its standard input may end it, or be
killed: then vLLM ends, too, with all processes that it has started.

The first line is a JSON object: `command`, and the `environment` that it gets. Output of both goes to the same log.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

NOT_STARTED = 127
_SET_CHILD_SUBREAPER = 36
_LOOK_SECONDS = 0.1
_TERM_SECONDS = 15.0
_KILL_SECONDS = 10.0
"""For the system to take back what killed processes held."""


def main() -> None:
    """Run the command until it, or this process's standard input, ends."""
    # Schedulers send it to all processes of a job. Whoever started this one ends it then.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    # What vLLM leaves behind becomes a child of this process.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(0, "rb", buffering=0, closefd=False) as asked:
        about = json.loads(asked.readline())
    try:
        child = subprocess.Popen(about["command"], env=about["environment"], stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        sys.stderr.write(f"{about['command'][0]}: {error.strerror}\n")
        sys.exit(NOT_STARTED)
    while child.poll() is None and not select.select([0], [], [], _LOOK_SECONDS)[0]:
        pass
    code = child.poll()
    _end_group(child)
    if code is not None:
        sys.exit(128 - code if code < 0 else code)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            try:
                while os.waitpid(-child.pid, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main()
