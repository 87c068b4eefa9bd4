"""Runs Python code that a model wrote, with its tests, where it can do no harm; refuses where it could.

What the code gets is namespaces of the kernel, made in `sft.scoring.sandbox_process`, and limits:

- no network, not even this machine's own; no other process, and no way to signal one; no shared memory of others;
- files: Python and its libraries, read only, and a small folder in memory that goes with it; an empty environment;
- no rights, as a user who owns nothing; limits on time, memory, processes, open files and what it writes;
- its end, or its time, ends everything that it started.

It is made of system calls and not of bubblewrap, whose rooms are the same: images that models are trained in do not
have it, and a user cannot install it there. Two ways to be safe would be two to prove. Where namespaces are forbidden,
nothing runs, and the message says what is missing: limits alone leave the network and the files of the user open. And
since own code is trusted least, `sft.scoring.sandbox_proof` tries to break out once in each process that runs code.

The kernel is shared: this stops what models write by mistake, and not an attack on the kernel. The tests run in the
process of the code: code that looks for them can make them pass.
"""

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sft.errors import UserError

_HERE = Path(__file__).parent
_MAX_REPORT_BYTES = 1 << 16
_GRACE_SECONDS = 60.0
"""For the start and the end of the room, on a busy machine."""


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """What an answer's code gets."""

    seconds: float = 10.0
    """Of time, and of processor time in each process."""
    memory_mib: int = 512
    """Of address space, in each process."""
    disk_mib: int = 16
    """Of files, together; they are in memory."""
    num_processes: int = 8
    """Processes and threads, together."""


class Outcome(NamedTuple):
    """How code and its tests ended."""

    passed: bool
    reason: str
    """What failed; empty if all passed."""


class SandboxMissing(UserError):
    """Code cannot be run safely on this machine."""


def run_code(code: str, tests: tuple[str, ...], setup: str, limits: CodeLimits) -> Outcome:
    """Run code, then the set-up, then the tests, in a room of their own. Threads may call it at the same time.

    Raises:
        SandboxMissing: there can be no such room here; nothing ran.
        ChildProcessError: the room was ended from outside, or had no time on a busy machine.
    """
    word = secrets.token_hex(16)
    task = {**asdict(limits), "code": code, "setup": setup, "tests": tests, "word": word}
    control, report = _run(task, limits)
    told = [content for line in control.splitlines() if isinstance(content := _json(line), dict)]
    ended = next((content for content in told if "status" in content or "late" in content), None)
    if ended is None:
        for content in told:
            if "unavailable" in content:
                raise SandboxMissing(_missing(str(content["unavailable"])))
        said = control.decode(errors="replace").strip()[-500:]
        raise ChildProcessError(f"the sandbox was ended before it told how the code ended: {said or 'it said nothing'}")
    return _outcome(ended, _json(report), word, limits)


def shown_folders() -> list[str]:
    """The folders of this machine that code can read, besides the system's libraries: those of Python."""
    return sorted({os.path.realpath(path) for path in (sys.base_prefix, sys.base_exec_prefix)})


def _outcome(ended: dict[str, Any], told: Any, word: str, limits: CodeLimits) -> Outcome:
    if isinstance(told, dict) and told.get("passed") == word:
        return Outcome(True, "")
    if isinstance(told, dict) and isinstance(told.get("failed"), str):
        more = f", with {limits.memory_mib} MiB" if told.get("memory") else ""
        return Outcome(False, told["failed"] + more)
    status = ended.get("status", 0)
    if "late" in ended or status == -signal.SIGXCPU:
        return Outcome(False, f"did not end within {limits.seconds:g} seconds")
    if status < 0:
        return Outcome(False, f"ended by signal {-status} ({signal.strsignal(-status)})")
    return Outcome(False, f"ended before its tests were over, with exit code {status}")


def _run(task: dict[str, Any], limits: CodeLimits) -> tuple[bytes, bytes]:
    """What the room told, and what the code in it told: each is bounded."""
    program = (_HERE / "sandboxed_code.py").read_text(encoding="utf-8")
    descriptor = os.memfd_create("task")
    reading, writing = os.pipe()
    with open(descriptor, "wb") as file, open(reading, "rb", buffering=0) as report:
        file.write(json.dumps({**task, "program": program, "folders": shown_folders(), "parent": os.getpid()}).encode())
        file.flush()
        os.lseek(descriptor, 0, os.SEEK_SET)
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", "-B", str(_HERE / "sandbox_process.py"), str(writing)],
            stdin=descriptor,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        )
        os.close(writing)
        assert process.stdout is not None
        try:
            return _read([process.stdout.fileno(), report.fileno()], limits.seconds + _GRACE_SECONDS)
        finally:
            process.kill()  # and with it, all that runs in the room
            process.stdout.close()
            process.wait()


def _read(descriptors: list[int], seconds: float) -> tuple[bytes, bytes]:
    """Everything from two pipes, until all have closed their ends, the time is over, or one says too much."""
    deadline = time.monotonic() + seconds
    texts = {descriptor: b"" for descriptor in descriptors}
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                part = os.read(key.fd, _MAX_REPORT_BYTES)
                texts[key.fd] += part
                if not part or len(texts[key.fd]) > _MAX_REPORT_BYTES:
                    selector.unregister(key.fd)
    control, report = descriptors
    return texts[control], texts[report]


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _missing(reason: str) -> str:
    return (
        f"score: code: code cannot be run safely on this machine: it cannot have namespaces of its own ({reason}). In "
        f"a container, start it with `--security-opt seccomp=unconfined` or `--cap-add SYS_ADMIN`. Elsewhere an "
        f"administrator may allow them: `sysctl user.max_user_namespaces=15000`, on Debian "
        f"`kernel.unprivileged_userns_clone=1`, on Ubuntu `kernel.apparmor_restrict_unprivileged_userns=0`. Or choose "
        f"another score."
    )
