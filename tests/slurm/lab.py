"""The Slurm cluster that `lab.sh` makes, as tests use it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.running import ROOT, wait_until
from tests.nodes.nodes import Done, Nodes, running_nodes

_SCRIPT = Path(__file__).with_name("lab.sh")
_FREEZER = Path("/sys/fs/cgroup/freezer")
_CGROUP = "slurm-lab-"


class Lab:
    """A running cluster; commands are those of its login node."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._variables = {"SLURM_CONF": "/run/lab/etc/slurm.conf", "PYTHONPATH": str(ROOT)}
        self.shared = nodes.shared
        self.tracks_by_cgroup = os.access(_FREEZER, os.W_OK)

    def run(self, *command: object, code: int = 0) -> Done:
        """Run a command that has to end with this exit code."""
        return self._nodes.run_outside(*command, variables=self._variables, code=code)

    def sft(self, *arguments: object, code: int = 0) -> Done:
        return self.run("python", "-m", "launcher", *arguments, code=code)

    def on_node(self, node: str, *command: object, code: int = 0) -> str:
        """What a command prints there."""
        done = self._nodes.run(node, *command, variables=self._variables, code=code)
        return done.stdout + done.stderr

    def kill_node(self, node: str) -> None:
        """As by a power cut."""
        self._nodes.kill(node)

    def cut_off(self, node: str) -> None:
        """See `Nodes`."""
        self._nodes.cut_off(node)

    def join_again(self, node: str) -> None:
        """The network is back."""
        self._nodes.join_again(node)
        self._wait_for_idle(node)

    def up_node(self, node: str) -> None:
        self._nodes.up(node)
        self._wait_for_idle(node)

    @contextmanager
    def without_a_word_before_preemption(self) -> Iterator[None]:
        """While it is open, Slurm is set up as it is by default: a preemption says SIGTERM, not USR1."""
        line = "SlurmctldParameters=preempt_send_user_signal"
        self._set_up(line, f"#{line}")
        try:
            yield
        finally:
            self._set_up(f"#{line}", line)

    def _set_up(self, old: str, new: str) -> None:
        """Change a line of Slurm's own config."""
        self.run("sed", "--in-place", f"s/^{old}/{new}/", self._variables["SLURM_CONF"])
        self.run("scontrol", "reconfigure")

    def _wait_for_idle(self, node: str) -> None:
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
    cgroup = f"{_CGROUP}{os.getpid()}"
    with running_nodes(folder, num_nodes, shared, _SCRIPT, {"LAB_CGROUP": cgroup}) as nodes:
        yield Lab(nodes)
    _remove_cgroups(cgroup)


def _remove_cgroups_of_dead_labs() -> None:
    for path in _FREEZER.glob(f"{_CGROUP}*"):
        if not Path(f"/proc/{path.name.removeprefix(_CGROUP)}").exists():
            _remove_cgroups(path.name)


def _remove_cgroups(name: str) -> None:
    for folder, _, _ in os.walk(_FREEZER / name, topdown=False):
        os.rmdir(folder)
