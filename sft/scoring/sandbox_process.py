"""Makes the sandbox around itself, and runs code in it: a program of its own, which imports nothing of sft.

    this process ─fork─▶ first process of the room ─fork─▶ Python with the answer's code
    new namespaces,      keeps the time, reports how       no rights, no more than its limits
    a new file system    the code ended; its end ends all

The task comes on standard input. What goes wrong before the code runs is told on standard output, as is its end.
`sft.scoring.sandbox` says what the room is made of, and why.
"""

import contextlib
import ctypes
import json
import os
import platform
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

NOBODY = 65534
REPORT = 3
_NAMESPACES = {
    "user": 0x10000000,
    "files": 0x00020000,
    "processes": 0x20000000,
    "network": 0x40000000,
    "shared memory": 0x08000000,
    "host name": 0x04000000,
}
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_KEPT = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}
_DETACH = 2
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVS = 1, 38
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_ROOM = "/room"

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Make the room, let the code run, and wait for its end."""
    os.dup2(int(sys.argv[1]), REPORT)
    with open(0, "rb", closefd=False) as file:
        task = json.load(file)
    # If memory is short, the kernel ends what runs here before it ends the run.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    is_root = _begin_namespaces()
    _call("prctl", _SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != task["parent"]:
        return
    program = os.path.realpath(sys.executable)
    _make_room(task, program, is_root)
    if pid := os.fork():
        os.waitpid(pid, 0)
    else:
        _be_first(task, program, is_root)


def _call(name: str, *arguments: Any) -> None:
    """A function of libc that returns 0.

    Raises:
        OSError: it does not; names the function.
    """
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _begin_namespaces() -> bool:
    """Enter new namespaces; returns whether this is root, with all its rights, in them.

    Root becomes nobody for the code: the kernel does not count root's processes. Any other user is nobody here at once.
    What has to write which users there are stands outside: the process that asks for it may not.
    """
    if platform.machine() in _KEYCTL:  # tickets of Kerberos may be in the keyring of the session
        _libc.syscall(_KEYCTL[platform.machine()], _JOIN_SESSION_KEYRING, None)
    is_root = os.geteuid() == 0 and _is_mapped(NOBODY)
    if is_root:
        os.setgroups([])
    begin, go = os.pipe()
    outer = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.close(go)
        if os.read(begin, 1):  # else it has ended
            with contextlib.suppress(OSError):
                _write_users(outer, is_root)
                os._exit(0)
        os._exit(1)
    _call("unshare", sum(_NAMESPACES.values()))
    os.write(go, b"1")
    if os.waitpid(helper, 0)[1]:
        raise PermissionError("uid_map: no users can be made in a new namespace")
    # Best effort: without it, code may have namespaces of its own in this one, and no more rights outside.
    with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    return is_root


def _is_mapped(user: int) -> bool:
    with open("/proc/self/uid_map") as file:
        ranges = [[int(number) for number in line.split()] for line in file]
    return any(first <= user < first + count for first, _, count in ranges)


def _write_users(process: int, is_root: bool) -> None:
    if not is_root:
        _write(f"/proc/{process}/setgroups", "deny")
    for name, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        _write(f"/proc/{process}/{name}", f"0 0 1\n{NOBODY} {NOBODY} 1" if is_root else f"{NOBODY} {own} 1")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _make_room(task: dict[str, Any], program: str, is_root: bool) -> None:
    """A file system with Python, its libraries and a small folder in memory, and nothing else."""
    _mount(None, "/", None, _REC | _PRIVATE)
    place = next(path for path in ("/tmp", "/mnt", "/var") if os.path.isdir(path))
    _mount("tmpfs", place, "tmpfs", _NOSUID | _NODEV, f"size={task['disk_mib']}m,nr_inodes=4096,mode=755")
    os.chdir(place)
    os.mkdir("old")
    _call("pivot_root", b".", b"old")
    os.chdir("/")
    for path in sorted({*_LIBRARIES, *_DEVICES, *task["folders"], os.path.dirname(os.path.dirname(program))}):
        _show(path)
    for path in sorted(_mapped_libraries()):
        if not os.path.exists(path):
            _show(path)
    _make_read_only()
    _call("umount2", b"/old", _DETACH)
    os.rmdir("/old")
    os.mkdir(_ROOM)
    if is_root:
        os.chown(_ROOM, NOBODY, NOBODY)
    os.chdir(_ROOM)


def _show(path: str) -> None:
    """Make a file or a folder visible at its place."""
    source = f"/old{path}"
    if not os.path.lexists(source) or os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), path)
        return
    if os.path.isdir(source):
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT))
    _mount(source, path, None, _BIND | _REC)


def _mapped_libraries() -> Iterator[str]:
    """The libraries that this Python has loaded, wherever they lie."""
    with open("/old/proc/self/maps") as file:
        paths = {line.split(maxsplit=5)[5].strip() for line in file if line.count(" /")}
    return (path for path in paths if ".so" in os.path.basename(path))


def _make_read_only() -> None:
    """Every mount but the room's own, with all those inside it; what is forbidden there stays so."""
    with open("/old/proc/self/mountinfo") as file:
        mounts = [line.split()[4:6] for line in file]
    for place, options in mounts:
        path = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place)
        if path != "/" and path != "/old" and not path.startswith("/old/"):
            kept = sum(_KEPT.get(option, 0) for option in set(options.split(",")))
            _mount(None, path, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | kept)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    try:
        _call("mount", *texts, ctypes.c_ulong(flags), options.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, at {target}") from None


def _be_first(task: dict[str, Any], program: str, is_root: bool) -> NoReturn:
    """Start the code, wait for its end or until its time is over, and say which. Leaving ends all that it left."""
    _call("prctl", _SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    deadline = time.monotonic() + task["seconds"]
    code = os.fork()
    if code == 0:
        try:
            _become_code(task, program, is_root)
        finally:
            os._exit(127)
    os.close(REPORT)
    while (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(0)
            if pid == code:
                _tell({"status": os.waitstatus_to_exitcode(status)})
                os._exit(0)
            if pid == 0:
                break
    _tell({"late": True})
    os._exit(0)


def _become_code(task: dict[str, Any], program: str, is_root: bool) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.lseek(0, 0, os.SEEK_SET)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.closerange(REPORT + 1, 1024)
    if is_root:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    mib = 1 << 20
    # Where the user is nobody at once, this process and the two before it count too.
    num_processes = task["num_processes"] + (0 if is_root else 2)
    for name, limit in {
        "AS": task["memory_mib"] * mib,
        "CPU": int(task["seconds"]) + 1,
        "FSIZE": task["disk_mib"] * mib,
        "NOFILE": 64,
        "NPROC": num_processes,
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }.items():
        _limit(getattr(resource, f"RLIMIT_{name}"), limit)
    _call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # This drops all rights: nobody has none. The hash seed makes the order of sets the same for every answer.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    environment |= {"PATH": "/usr/bin:/bin", "HOME": _ROOM, "LANG": "C.UTF-8"}
    environment |= {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1"}
    os.execve(program, [program, "-P", "-s", "-S", "-B", "-c", task["program"]], environment)


def _limit(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (lowest, lowest))


def _tell(content: dict[str, Any]) -> None:
    os.write(1, json.dumps(content).encode() + b"\n")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        _tell({"unavailable": error.strerror or str(error)})
