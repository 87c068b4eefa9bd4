"""The Slurm cluster that `lab.sh` makes, as tests use it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.running import ROOT, wait_until

_SCRIPT = Path(__file__).with_name("lab.sh")
_FREEZER = Path("/sys/fs/cgroup/freezer")
_CGROUP = "slurm-lab-"
_END_SECONDS = 60
_NAMESPACES = ["--net", "--uts", "--ipc", "--pid", "--mount"]


class Lab:
    """A running cluster; commands are those of its login node."""

    def __init__(self, first_pid: int, shared: Path) -> None:
        self._enter = ["nsenter", "--target", str(first_pid), "--all", "--", "env", f"--chdir={ROOT}"]
        self.shared = shared
        self.tracks_by_cgroup = os.access(_FREEZER, os.W_OK)

    def run(self, *command: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command that has to end with this exit code."""
        environment = {
            **os.environ,
            "SLURM_CONF": "/run/lab/etc/slurm.conf",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        environment.pop("RAY_ADDRESS", None)
        words = [*self._enter, *map(str, command)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=200, env=environment)
        assert done.returncode == code, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def sft(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "launcher", *arguments, code=code)

    def on_node(self, node: str, *command: object, code: int = 0) -> str:
        """What a command prints there."""
        done = self.run(_SCRIPT, "on-node", node, *command, code=code)
        return done.stdout + done.stderr

    def kill_node(self, node: str) -> None:
        """As by a power cut."""
        self.run(_SCRIPT, "kill-node", node)

    def up_node(self, node: str) -> None:
        self.run(_SCRIPT, "up-node", node)
        wait_until(lambda: "idle" in self.run("sinfo", "-h", "-n", node, "-o", "%t").stdout, 60, f"{node} is not up")

    def job(self, job_id: str) -> dict[str, str]:
        """What Slurm says of a job: JobState, ExitCode, Restarts, NodeList and more."""
        text = self.run("scontrol", "show", "job", "--oneliner", job_id).stdout
        return dict(field.partition("=")[::2] for field in text.split())

    def nodes_of(self, job_id: str) -> list[str]:
        return self.run("scontrol", "show", "hostnames", self.job(job_id)["NodeList"]).stdout.split()

    def wait_for_state(self, job_id: str, state: str, seconds: float) -> None:
        found = ""

        def has_state() -> bool:
            nonlocal found
            found = self.job(job_id)["JobState"]
            assert found == state or found not in ("FAILED", "TIMEOUT", "NODE_FAIL", "CANCELLED"), found
            return found == state

        wait_until(has_state, seconds, f"job {job_id} is {found}, not {state}")


@contextmanager
def slurm_lab(folder: Path, num_nodes: int, shared: Path) -> Iterator[Lab]:
    """A cluster for as long as this is open, or this process lives; `shared` is seen by all nodes."""
    _remove_cgroups_of_dead_labs()
    command = ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "--kill-child", str(_SCRIPT)]
    command += ["run", str(folder), f"{_CGROUP}{os.getpid()}", str(num_nodes), str(ROOT), sys.prefix, str(shared)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the lab did not start; see its messages"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        try:
            yield Lab(int(children[0]), shared)
        finally:
            process.stdin.close()
            process.wait(_END_SECONDS)
    _remove_cgroups(f"{_CGROUP}{os.getpid()}")


def _remove_cgroups_of_dead_labs() -> None:
    for path in _FREEZER.glob(f"{_CGROUP}*"):
        if not Path(f"/proc/{path.name.removeprefix(_CGROUP)}").exists():
            _remove_cgroups(path.name)


def _remove_cgroups(name: str) -> None:
    for folder, _, _ in os.walk(_FREEZER / name, topdown=False):
        os.rmdir(folder)
