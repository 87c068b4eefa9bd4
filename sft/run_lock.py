"""One job at a time in a run folder: a lock file that its holder renews, on any file system.

    {"node": "a", "machine": "<boot and pid namespace>", "pid": 71, "started": 5566, "since": "…",
     "nonce": "…", "beat": 3, "job": "lab 71", "job_attempt": 2}

The file is created exclusively, and its `beat` counts up while the holder lives. If the holder's process would be on
this machine and Linux lists its processes, we know at once whether it is dead. Otherwise we watch its beat by our own
clock, so no two clocks are compared. If the holder is alive, the job is refused. An exception is an earlier attempt of
the same queued job, whose nodes the scheduler has given to this one: it is asked to end, and waited for. Invariant:
only one of those that find a dead holder takes over, and nobody removes a lock other than the one it judged.
"""

import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from sft.errors import UserError
from sft.queued_job import queued_job

_POLLS = 40
"""How often to look at a beat in the time after which its holder counts as dead."""

_SILENT_AFTER_SECONDS = 60.0
"""A holder renews its lock every few seconds; after this time without a renewal, readers count it as dead."""

_PROC = Path("/proc")
"""Where Linux lists its processes; no other system has it."""

_SETTLE_SECONDS = 0.2
"""After a takeover: time for another taker to put back what it renamed by mistake."""


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who holds a lock, as its file says."""

    node: str
    machine: str | None
    """Two processes see each other's pids if and only if this is equal. None: not known."""
    pid: int
    started: int
    """When the process was started, in ticks of its machine's clock: pids are reused."""
    since: str
    nonce: str
    beat: int
    job: str | None = None
    """The queued job that this is an attempt of (see `sft.queued_job`)."""
    job_attempt: int = 0

    def is_later_than(self, other: "_Holder") -> bool:
        """Whether both are attempts of the same queued job, and this is the later one."""
        return self.job is not None and self.job == other.job and self.job_attempt > other.job_attempt

    def __str__(self) -> str:
        return f"process {self.pid} on {self.node}, since {self.since}"


@contextmanager
def run_lock(
    path: Path,
    on_lost: Callable[[str], None],
    say: Callable[[str], None] = lambda text: None,
    beat_seconds: float = 5.0,
    dead_after_seconds: float = 20.0,
    field: str = "run.dir",
) -> Iterator[None]:
    """Hold the lock file while this is open; a lock of a dead process is taken over.

    Args:
        path: the lock file; its folder is made.
        on_lost: called once, from a thread, with a message, if another process has taken over, which happens if this
            one was suspended, or if a later attempt of the same queued job waits for the lock. Stop working in the
            folder at once, and leave the lock as it is: the waiting process takes it after it was silent.
        say: called with a message if it takes a while to find out whether a holder is alive, or to wait for its end.
        beat_seconds: time between two renewals.
        dead_after_seconds: a holder on another machine that does not renew for this long is dead; several times
            `beat_seconds`, and the same on all nodes.
        field: of the config, that names the folder.

    Raises:
        UserError: a living process holds it, or the folder cannot be written.
    """
    nonce = secrets.token_hex(8)
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    own = _Holder(socket.gethostname(), _machine(), os.getpid(), _start_time(os.getpid()) or 0, now, nonce, 0)
    if (job := queued_job()) is not None:
        own = replace(own, job=job.name, job_attempt=job.attempt)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(path, own, say, dead_after_seconds, field)
    except OSError as error:
        raise UserError(
            f"{field}: {path.parent} cannot be written: {error.strerror or error}. Give a writable folder."
        ) from error
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, own, on_lost, ended, beat_seconds), name="lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(OSError):
            _remove(path, own.nonce)


class Held(NamedTuple):
    """Who holds a lock, in words, and when it was renewed last, by the file system's clock (Unix time in seconds)."""

    who: str
    renewed_at: float

    def is_alive(self, now: float) -> bool:
        """Whether it was renewed not long before `now`, a time of the same clock."""
        return now - self.renewed_at < _SILENT_AFTER_SECONDS


def read_holder(path: Path) -> Held | None:
    """Who holds the lock now, for readers; None if nobody does. A dead holder no longer renews it."""
    try:
        renewed_at = path.stat().st_mtime
    except FileNotFoundError:
        return None
    holder = _read(path)
    return None if holder is None else Held(str(holder), renewed_at)


def _acquire(path: Path, own: _Holder, say: Callable[[str], None], dead_after_seconds: float, field: str) -> None:
    asked: Path | None = None
    while not _create(path, own):
        holder = _read(path)
        if holder is None:
            continue
        if own.machine is not None and holder.machine == own.machine:
            is_dead = _start_time(holder.pid) != holder.started
        else:
            if asked is None:
                wait = f"waiting {dead_after_seconds:.0f} seconds for a sign of life from there"
                say(f"{path} is held by {holder}; {wait}")
            is_dead = _stays_silent(path, holder, dead_after_seconds)
        if is_dead:
            # If several processes try, one removes the lock, and one creates the next; this decides both.
            if _remove(path, holder.nonce) and _create(path, own):
                time.sleep(_SETTLE_SECONDS)
                if (now := _renew(path, own)) is not None:
                    raise _held(path, now, field)
                break
        elif own.is_later_than(holder):
            if asked is None:
                say(f"That is an earlier attempt of this job ({own.job}) and still at work: it is asked to end")
            asked = _request(path, holder.nonce)
            asked.touch()
            time.sleep(dead_after_seconds / _POLLS)
        else:
            raise _held(path, holder, field)
    if asked is not None:
        asked.unlink(missing_ok=True)


def _request(path: Path, nonce: str) -> Path:
    """The file that asks the holder of this lock to end."""
    return path.with_name(f".{path.name}.{nonce}.asked")


def _held(path: Path, holder: _Holder, field: str) -> UserError:
    return UserError(
        f"{path.parent} is in use by another job: {holder}. Two jobs would overwrite each other's work. "
        f"Wait for it or stop it, or give {field} another folder."
    )


def _stays_silent(path: Path, holder: _Holder, seconds: float) -> bool:
    """Whether the holder's beat does not change in this time, by our clock."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(seconds / _POLLS)
        now = _read(path)
        if now is None or now.nonce != holder.nonce:
            return True  # released, or taken by another: the caller judges the new one
        if now.beat != holder.beat:
            return False
    return True


def _beat(path: Path, own: _Holder, on_lost: Callable[[str], None], ended: threading.Event, seconds: float) -> None:
    while not ended.wait(seconds):
        own = replace(own, beat=own.beat + 1)
        try:
            other = _renew(path, own)
            is_asked = _request(path, own.nonce).exists()
        except OSError:
            continue  # the disk may have room again before the lock counts as dead
        if is_asked:
            on_lost(f"A later attempt of this job ({own.job}) waits for {path}: the job's nodes were given to it.")
            return
        if other is not None:
            on_lost(f"{path} was taken over by {other}: this process did not renew it for too long.")
            return


def _renew(path: Path, own: _Holder) -> _Holder | None:
    """Renew our lock; returns the other holder if the lock is lost."""
    while (found := _read(path)) is None:
        # Another process may be about to put it back (see `_remove`), or a user deleted it.
        if _create(path, own):
            return None
    if found.nonce != own.nonce:
        return found
    aside = path.with_name(f".{path.name}.{own.nonce}.partial")
    aside.write_text(_as_text(own), encoding="utf-8")
    aside.replace(path)
    return None


def _create(path: Path, own: _Holder) -> bool:
    """Create the lock file; False if it is there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_as_text(own))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise
    return True


def _remove(path: Path, nonce: str) -> bool:
    """Remove the lock with this nonce; False if it was gone, or is another's."""
    found = _read(path)
    if found is None or found.nonce != nonce:
        return False
    # The lock may have become another's between the read and the rename; the rename itself succeeds only once.
    removed = path.with_name(f".{path.name}.{secrets.token_hex(8)}.removed")
    try:
        path.rename(removed)
    except FileNotFoundError:
        return False
    found = _read(removed)
    removed.unlink()
    if found is not None and found.nonce != nonce:
        _create(path, found)
        return False
    return True


def _read(path: Path) -> _Holder | None:
    """Who holds the lock; None if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder, but it must be the lock file of a job. No job made this folder: remove it."
        ) from None
    except OSError as error:
        if error.errno == errno.ESTALE:  # replaced on the server while it was opened
            return None
        raise
    try:
        return _Holder(**json.loads(text))
    except (ValueError, TypeError):
        # Just being created, or half lost in a power cut: if it does not change, it counts as dead.
        return _Holder("an unknown node", "", 0, 0, "an unknown time", text, 0)


def _as_text(holder: _Holder) -> str:
    return json.dumps(asdict(holder)) + "\n"


def _machine() -> str | None:
    """Identifies the machine's boot and the namespace of its pids, such as a container's."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """When the process was started, in ticks of its machine's clock; None if there is no such process alive."""
    try:
        # The second field is the command in parentheses, which may contain anything.
        fields = (_PROC / f"{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
