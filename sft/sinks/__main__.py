"""The process of one sink: `python -m sft.sinks FD`, started by `sft.sinks.processes`.

Its request comes through standard input, whose other end stays open as long as the training goes on. Through the file
descriptor it reports, one line of JSON each, that it is alive, where to find the run, and why it gives up.
"""

import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

import yaml
from filelock import FileLock

from sft.atomic_files import read_json, write_json
from sft.attempt_record import read_end
from sft.paused_collector import paused_collector
from sft.run_folder import RunFolder
from sft.sinks.follower import follow
from sft.sinks.processes import SinkRequest
from sft.sinks.run_reader import RunReader
from sft.sinks.sink import End, Purpose
from sft.sinks.table import SINKS
from sft.url_secrets import remember_secrets, without_secrets

_MAX_REASON_CHARS = 500


def main() -> None:
    """Follow the run; an error ends only this process."""
    # Signals of the job are for the processes that train: this one ends after them.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    request: SinkRequest = pickle.load(sys.stdin.buffer)
    remember_secrets(request.logging.model_dump())
    os.set_inheritable(number := int(sys.argv[1]), False)  # processes that a package starts must not keep it open
    lines = os.fdopen(number, "w", encoding="utf-8")

    def tell(**message: str) -> None:
        # The process that started this one may be gone: this one still finishes.
        with suppress(BrokenPipeError):
            lines.write(json.dumps(message) + "\n")
            lines.flush()

    ended = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(ended, request.end_seconds), daemon=True).start()
    try:
        _run(request, tell, ended)
    except Exception as error:  # the process ends here: no error may go unreported
        traceback.print_exc()
        first_line = (str(error).strip().splitlines() or [""])[0]
        tell(failed=without_secrets(f"{type(error).__name__}: {first_line}")[:_MAX_REASON_CHARS])
        sys.stderr.flush()
        os._exit(1)  # a normal exit would wait for threads of its package


def _run(request: SinkRequest, tell: Any, ended: threading.Event) -> None:
    run, load = RunFolder(request.run), SINKS[request.sink].load
    path = run.sink_state(request.sink)
    tell(beat="")
    # The sink of a driver that was just killed may still be finishing.
    with FileLock(path.with_suffix(".lock"), timeout=3 * request.end_seconds):
        with paused_collector():
            kind = load()
        destination = kind.destination(request.logging)
        known = read_json(path) if path.is_file() else {}
        if known.get("destination") != destination:
            known = {}  # it was sent elsewhere: everything is new here
        config = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        purpose = Purpose(request.name, request.logging, run.sinks, run.tensorboard, config, known.get("id", ""))
        sink = kind(purpose)
        reader = RunReader(run, request.stages, sink.replaces, known.get("state", {}))

        def keep() -> None:
            write_json(path, {"destination": destination, "id": sink.id, "state": reader.state})

        keep()
        tell(where=sink.where)
        follow(reader, sink, keep, lambda: tell(beat=""), ended)
        sink.close(_end(run))


def _end(run: RunFolder) -> End:
    """How the training ended, as the ranks, or the process that started them, recorded it."""
    try:
        ended = read_end(run.attempt(run.latest_attempt()))
    except OSError:
        return "failed"
    why = ended.why if ended else "failed"
    return "finished" if why == "done" else "stopped" if why == "stopped" else "failed"


def _wait_for_the_end(ended: threading.Event, end_seconds: float) -> None:
    # Not by Python's own reader: the interpreter could not exit while it reads.
    while os.read(0, 1):
        pass
    ended.set()
    # If no process is left to end this one before.
    time.sleep(2 * end_seconds)
    os._exit(1)


if __name__ == "__main__":
    main()
