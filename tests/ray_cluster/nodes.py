"""Machines of which `nodes.sh` makes several on this one, as tests use them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.cluster.running import ROOT

_SCRIPT = Path(__file__).with_name("nodes.sh")
_NAMESPACES = ["--net", "--uts", "--ipc", "--pid", "--mount"]


class Nodes:
    """They are called node1, node2 and so on, as far as they are up."""

    def __init__(self, first_pid: int, shared: Path) -> None:
        self._enter = ["nsenter", "--target", str(first_pid), "--all", "--", "env", f"--chdir={ROOT}", str(_SCRIPT)]
        self.shared = shared

    def up(self, node: str) -> None:
        self._run(["up-node", node])

    def kill(self, node: str) -> None:
        """As by a power cut."""
        self._run(["kill-node", node])

    def address(self, node: str) -> str:
        return f"10.78.0.{10 + int(node.removeprefix('node'))}"

    def run(
        self, node: str, *command: object, variables: Mapping[str, str] | None = None, stdin: str = "", code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a node that has to end with this exit code."""
        return self._run(["on-node", node, *map(str, command)], variables or {}, stdin, code)

    def start(
        self, node: str, *command: object, log: IO[bytes], variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on a node; it ends with the node at the latest."""
        words = [*self._enter, "on-node", node, *map(str, command)]
        environment = _environment(variables or {})
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def _run(
        self, words: list[str], variables: Mapping[str, str] | None = None, stdin: str = "", code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._enter, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=200,
            env=_environment(variables or {}),
            check=False,
        )
        assert done.returncode == code, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done


@contextmanager
def running_nodes(folder: Path, num_nodes: int, shared: Path) -> Iterator[Nodes]:
    """Room for so many nodes for as long as this is open, or this process lives; all see `shared`."""
    command = ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "--kill-child", str(_SCRIPT)]
    command += ["run", str(folder), str(num_nodes), str(ROOT), sys.prefix, str(shared)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the nodes cannot be made; see the messages above"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        try:
            yield Nodes(int(children[0]), shared)
        finally:
            process.stdin.close()
            process.wait(30)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", **variables}
