"""Code that tries to do harm does none, and its verdict says what happened. All of it really runs."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sft.scoring import sandbox_proof
from sft.scoring.judging import Judging
from sft.scoring.registry import read_score
from sft.scoring.sandbox import CodeLimits, Outcome, SandboxMissing, run_code
from sft.scoring.scorer import Answer, Question

LIMITS = CodeLimits(seconds=10.0, memory_mib=256)
SHORT = CodeLimits(seconds=0.3, memory_mib=256)


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> None:
    try:
        sandbox_proof.prove_sandbox()
    except SandboxMissing as error:
        pytest.skip(str(error))


def run(code: str, *tests: str, setup: str = "", limits: CodeLimits = LIMITS) -> Outcome:
    return run_code(code, tests or ("pass",), setup, limits)


@pytest.mark.parametrize(
    ("code", "tests", "setup", "reason"),
    [
        ("def f(x): return x + 1", ("assert f(1) == 2", "assert f(2) == 3"), "", ""),
        ("class Node: pass", ("assert root",), "root = Node()", ""),
        ("from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n  x: int",
         ("assert A(1).x == 1",), "", ""),
        ("if __name__ == '__main__': input()", ("pass",), "", ""),
        ("import threading\nthreading.Thread(target=threading.Event().wait).start()", ("pass",), "", ""),
        ("def f(x): return x", ("pass", "assert f(1) == 2"), "", "test 2 raised AssertionError: assert f(1) == 2"),
        ("def f(x: return", ("pass",), "", "the code raised SyntaxError: invalid syntax"),
        ("x = 1", ("pass",), "y", "the set-up raised NameError: name 'y' is not defined"),
        ("raise SystemExit(0)", ("pass",), "", "the code raised SystemExit: 0"),
        ("import os; os._exit(0)", ("assert False",), "", "ended before its tests were over, with exit code 0"),
        ("import ctypes; ctypes.string_at(0)", ("pass",), "", "ended by signal 11 (Segmentation fault)"),
        ("input()", ("pass",), "", "the code raised EOFError"),
        ("import builtins; builtins.exec = lambda *given: None", ("assert False",), "", "test 1 raised AssertionError"),
        ("import builtins as b; c = b.compile; b.compile = lambda *given: c('', '', 'exec')", ("assert False",), "",
         "test 1 raised AssertionError"),
    ],
)  # fmt: skip
def test_code_passes_if_all_its_tests_do(code, tests, setup, reason):
    outcome = run(code, *tests, setup=setup)
    assert outcome.passed == (not reason)
    assert outcome.reason.startswith(reason)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os\nwhile True: os.fork()", "BlockingIOError"),
        ("import threading\nfor _ in range(99): threading.Thread(target=threading.Event().wait).start()", "start new"),
        ("bytearray(1 << 30)", "MemoryError, with 256 MiB"),
        ("x = []\nwhile True: x.append('a' * 100000)", "MemoryError, with 256 MiB"),
        ("f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))", "OSError"),
        ("for n in range(9): open(str(n), 'wb').write(bytes(4 << 20))", "No space left on device"),
        ("f = [open('/dev/null') for _ in range(99)]", "Too many open files"),
        ("import pathlib; pathlib.Path.home().parent.joinpath('etc', 'passwd').read_text()", "FileNotFoundError"),
        ("import os; open(os.__file__, 'a')", "Error"),
        ("import os; os.chroot('/')", "PermissionError"),
        ("import socket; socket.create_connection(('127.0.0.1', 80), 1)", "Network is unreachable"),
        ("open('/proc/1/environ')", "FileNotFoundError"),
        ("import os; os.kill(PID_OF_THE_TEST, 9)", "ProcessLookupError"),
        ("import ctypes\nassert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0", "AssertionError"),
        ("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0", "AssertionError"),
        ("import os\nassert os.environ.keys() - {'PATH', 'HOME', 'LANG', 'PYTHONHASHSEED', 'MALLOC_ARENA_MAX', "
         "'LD_LIBRARY_PATH'}", "AssertionError"),
    ],
)  # fmt: skip
def test_what_does_harm_fails_with_its_reason(code, reason):
    outcome = run(code.replace("PID_OF_THE_TEST", str(os.getpid())))
    assert not outcome.passed
    assert reason in outcome.reason


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(100)",
        "import signal\nfor n in (1, 2, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
        "while True: print('x' * 10000)",
        "import os\nwhile True: os.write(3, bytes(10000))",
    ],
)
def test_what_does_not_end_is_ended(code):
    start = time.monotonic()
    assert run(code, limits=SHORT) == Outcome(False, "did not end within 0.3 seconds")
    assert time.monotonic() - start < 20


def test_files_of_the_user_and_the_environment_are_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_USER", "s3cret")
    with tempfile.NamedTemporaryFile(dir=tempfile.gettempdir()) as file:
        os.chmod(file.name, 0o666)
        code = f"import os\nseen = os.environ.get('SECRET_OF_THE_USER'), os.path.exists({file.name!r})"
        assert run(code, "assert seen == (None, False), seen") == Outcome(True, "")
        assert run(f"open({file.name!r}, 'w')").reason.startswith("the code raised")
        assert Path(file.name).exists()


def test_a_server_of_this_machine_is_not_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        assert "Network is unreachable" in run(code).reason
        with pytest.raises(TimeoutError):
            server.accept()


def named_processes(name: str) -> list[str]:
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            found += [str(comm)] * (comm.read_text().strip() == name)
        except OSError:  # it has ended
            continue
    return found


def test_nothing_outlives_its_answer():
    name = f"lives{os.getpid() % 100000}"
    daemon = (
        f"import ctypes, os, time\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n"
        "if os.fork() == 0:\n  os.setsid()\n  os.fork()\n  time.sleep(100)\nos.kill(os.getppid(), 9)"
    )
    run(daemon)
    run("pass", daemon)
    assert named_processes(name) == []


def test_killing_all_that_it_sees_is_all_that_it_can_do():
    kills = "import os\nfor pid in (os.getppid(), 1):\n  try: os.kill(pid, 9)\n  except PermissionError: pass"
    assert run(kills).passed
    run("import os; os.kill(-1, 9)")
    assert run("x = 1").passed


def test_the_order_of_sets_is_the_same_in_every_run():
    code = "x = list({str(n) for n in range(50)})"
    shown = {run(code, "assert False, str(x)").reason for _ in range(2)}
    assert len(shown) == 1


def test_the_scorer_judges_the_code_of_an_answer():
    question = Question(tests=("assert f(2) == 4",))
    with Judging(read_score({"name": "code", "seconds": 5}), allow_code=True) as judging:
        right = judging.judge(Answer("Here:\n```python\ndef f(x):\n    return 2 * x\n```\n"), question)
        wrong = judging.judge(Answer("def f(x): return x"), question)
    assert (right.scores, wrong.scores) == ({"passed": 1.0}, {"passed": 0.0})
    assert "assert f(2) == 4" in wrong.note


def test_every_attempt_of_the_proof_finds_its_hole_where_there_is_no_sandbox():
    with tempfile.NamedTemporaryFile() as secret, socket.create_server(("127.0.0.1", 0)) as server:
        given = (
            f"port, secret, process = {server.getsockname()[1]}, {secret.name!r}, {os.getpid()}\n"
            "num_processes, memory_bytes, canary = 2, 1 << 20, 'PATH'\n"
        )
        code = given + sandbox_proof._ATTEMPTS + "\nprint('\\n'.join(holes))"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    holes = {line.removeprefix("code ") for line in shown.splitlines()}
    of_root = {"writes to Python's own folder", "changes the root of its file system", "is root"}
    assert holes - of_root == {
        "connects to a server of this machine",
        "reads a file of the user",
        "signals a process outside",
        "starts more processes than it may",
        "takes more memory than it may",
        "sees processes",
        "sees the environment",
    }
    assert os.geteuid() != 0 or of_root <= holes


def test_where_namespaces_are_forbidden_nothing_runs_and_the_message_says_why():
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    code = "from sft.scoring.sandbox_proof import prove_sandbox; prove_sandbox()"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, sys.executable, code]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "SandboxMissing: score: code: code cannot be run safely on this machine" in result.stderr
    assert "cannot have namespaces of its own (unshare:" in result.stderr
    assert "--security-opt seccomp=unconfined" in result.stderr
