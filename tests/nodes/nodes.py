"""Machines of which `nodes.sh` makes several on this one, as tests use them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.cluster.running import ROOT

SCRIPT = Path(__file__).with_name("nodes.sh")
_NAMESPACES = ["--net", "--uts", "--ipc", "--pid", "--mount"]
_COMMAND_SECONDS, _END_SECONDS = 200, 60
Done = subprocess.CompletedProcess[str]


class Nodes:
    """They are called node1, node2 and so on, as far as they are up; the machine beside them is outside."""

    def __init__(self, script: Path, first_pid: int, shared: Path) -> None:
        self._script = str(script)
        self._enter = ["nsenter", "--target", str(first_pid), "--all", "--", "env", f"--chdir={ROOT}"]
        self.shared = shared

    def up(self, node: str) -> None:
        self.run_outside(self._script, "up-node", node)

    def kill(self, node: str) -> None:
        """As by a power cut."""
        self.run_outside(self._script, "kill-node", node)

    def cut_off(self, node: str) -> None:
        """Its network is gone, and its processes and storage are not; switched off and on again it has both."""
        self._link(node, "down")

    def join_again(self, node: str) -> None:
        """The network is back."""
        self._link(node, "up")

    def address(self, node: str) -> str:
        return f"10.77.0.{10 + int(node.removeprefix('node'))}"

    def run(
        self, node: str, *command: object, variables: Mapping[str, str] | None = None, stdin: str = "", code: int = 0
    ) -> Done:
        """Run a command on a node that has to end with this exit code."""
        return self.run_outside(*self._on(node, command), variables=variables, stdin=stdin, code=code)

    def run_outside(
        self, *command: object, variables: Mapping[str, str] | None = None, stdin: str = "", code: int = 0
    ) -> Done:
        """The same, on the machine beside them."""
        done = subprocess.run(
            [*self._enter, *map(str, command)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            env=_environment(variables or {}),
            check=False,
        )
        assert done.returncode == code, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def start(
        self, node: str, *command: object, log: IO[bytes], variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on a node; it ends with the node at the latest."""
        words = [*self._enter, *self._on(node, command)]
        environment = _environment(variables or {})
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def _link(self, node: str, state: str) -> None:
        self.run_outside("ip", "link", "set", f"port{node.removeprefix('node')}", state)

    def _on(self, node: str, command: tuple[object, ...]) -> list[str]:
        return [self._script, "on-node", node, *map(str, command)]


@contextmanager
def running_nodes(
    folder: Path, num_nodes: int, shared: Path, script: Path = SCRIPT, variables: Mapping[str, str] | None = None
) -> Iterator[Nodes]:
    """Room for so many nodes for as long as this is open, or this process lives; all see `shared`."""
    command = ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "--kill-child", str(script)]
    command += ["run", str(folder), str(num_nodes), str(ROOT), sys.prefix, str(shared)]
    environment = {**os.environ, **(variables or {})}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the nodes cannot be made; see the messages above"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        try:
            yield Nodes(script, int(children[0]), shared)
        finally:
            process.stdin.close()
            process.wait(_END_SECONDS)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", **variables}
