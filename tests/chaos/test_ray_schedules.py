"""A real Ray loses workers, what it runs beside them, nodes and its head: the driver goes on and gives the undisturbed
model. `own` is a Ray that the driver has started for itself, `cluster` one of a head and two nodes, in which the driver
may be lost too, and is started again.

One can be run alone: `pytest tests/chaos -k cluster-2 --chaos 18`.
"""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest
import yaml
from ray._private.node import Node
from ray.cluster_utils import Cluster

from sft.atomic_files import hash_file
from sft.config import SftConfig
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from tests.chaos.conftest import Tell
from tests.chaos.faults import Schedule
from tests.chaos.job import Job
from tests.cluster.running import ROOT, SFT, environment, losses, metrics, pid_of, run_to_end, wait_until
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job

NUM_STEPS, MANY_STEPS = {"broad": 4, "words": 170}, {"broad": 4, "words": 320}
"""Enough for the first schedule of each kind, and for all others."""
PROCESSES = {
    "worker": "ray::RayTrainWorker",
    "controller": "ray::TrainController",
    "raylet": "raylet",
    "control store": "gcs_server",
    "process that speaks to Ray": "launcher.cluster.trainer",
    "node's agent": "ray::DashboardAgent",
}
"""victim: what its command line holds; a raylet ends with its agent. Beside them a helper: any other actor of Ray
Train."""
SURVIVED = "helper"
"""May be lost without the group being started again."""
FIRST_STEPS = (6, 90)
"""Those of which each kind loses two in its first schedule, and two others in its second one; further ones are random.
Steps go by before a loss is noticed: on a quick machine 60."""

Strike = tuple[int, str]
"""(the step of the last stage at which it strikes, who is killed)"""


@pytest.fixture(scope="module")
def num_steps(request: pytest.FixtureRequest) -> Mapping[str, int]:
    """Of each stage."""
    return NUM_STEPS if request.config.getoption("--chaos") == 1 else MANY_STEPS


@pytest.fixture(scope="module")
def long_job(
    num_steps: Mapping[str, int],
    tiny_model_dir: Path,
    small_records: SmallRecords,
    tmp_path_factory: pytest.TempPathFactory,
) -> Job:
    """With more steps, since on a cluster others go by before a loss is noticed."""
    folder = tmp_path_factory.mktemp("clusters")
    content = two_stage_job("prepared", folder, tiny_model_dir, small_records, dict(num_steps))
    content["train"]["packs_per_step"] = 4
    workload, _store, _plans = prepare_workload(SftConfig.model_validate(content))
    return Job(content, workload.as_json(), folder)


@pytest.fixture(scope="module")
def undisturbed(long_job: Job) -> RunFolder:
    return long_job.run("undisturbed", Schedule(0, (2,), ()))


@pytest.mark.long
def test_a_cluster_that_loses_anything_gives_the_undisturbed_model(
    long_job: Job, undisturbed: RunFolder, num_steps: Mapping[str, int], cluster_seed: int, tell: Tell
) -> None:
    check(long_job, undisturbed, num_steps, ClusterJob, cluster_seed, tell)


@pytest.mark.long
def test_a_ray_of_its_own_that_is_lost_is_started_again_and_gives_the_undisturbed_model(
    long_job: Job, undisturbed: RunFolder, num_steps: Mapping[str, int], own_seed: int, tell: Tell
) -> None:
    check(long_job, undisturbed, num_steps, OwnJob, own_seed, tell)


def check(
    long_job: Job, undisturbed: RunFolder, num_steps: Mapping[str, int], kind: "type[RayJob]", seed: int, tell: Tell
) -> None:
    run, strikes = long_job.prepare(f"{kind.name}-{seed}"), kind.schedule(seed)
    config = run.path.with_suffix(".yaml")
    # What is not Ray's own has been looked at elsewhere, and this is done at every start.
    content = {**long_job.content, "run": {"name": run.path.name, "dir": str(run.path)}}
    config.write_text(yaml.safe_dump({**content, "cluster": {"workers": 2, "preflight": False}}))
    # As the command `sft` does, without the working folder before all others.
    job = kind([sys.executable, "-P", *SFT[1:], "train", str(config)], run)
    try:
        num_struck = sum(job.meet(*strike) for strike in strikes)
        job.finish()
    finally:
        job.close()
    assert num_struck >= len(strikes) / 2, strikes
    for index, (stage, num) in enumerate(num_steps.items()):
        found, wanted = (hash_file(r.stage(index, stage).model / "model.safetensors") for r in (run, undisturbed))
        assert found == wanted, strikes
        assert losses(run, stage, num) == losses(undisturbed, stage, num), strikes
    run_to_end([*SFT, "verify", str(run.path)])
    assert "Traceback" not in run.path.with_suffix(".log").read_text()
    tell(run, [f"kill the {victim} after step {step}" for step, victim in strikes], "to the bit")


class RayJob:
    """A driver with a Ray, which goes on by itself when a part of it is killed."""

    name: str
    victims: Sequence[str]
    first: Sequence[str]
    """The victims of the first two schedules, in order."""

    @classmethod
    def schedule(cls, seed: int) -> list[Strike]:
        """Two of the first, or one to four strikes, always the same for a seed."""
        if first := cls.first[2 * seed : 2 * seed + 2]:
            return list(zip(FIRST_STEPS, first, strict=True))
        rng = random.Random(seed)
        victims = rng.choices(cls.victims, k=rng.randint(1, 4))
        return list(zip(sorted(rng.sample(range(4, 200), len(victims))), victims, strict=True))

    def __init__(self, command: list[str], run: RunFolder) -> None:
        self._command = command
        self._run = run
        self._attempt = 1  # that is under way, or a later one
        self._log = run.path.with_suffix(".log").open("ab")
        self._start_ray()
        self._driver = self._start_driver()

    def meet(self, step: int, victim: str) -> bool:
        """Kill the victim when an attempt that has not been struck has trained the step; False if all ended before."""
        if not self._reaches(step):
            return False
        self._strike(victim)
        if victim != SURVIVED:
            self._attempt = self._run.latest_attempt() + 1
        return True

    def finish(self) -> None:
        """Wait for the end."""
        assert self._driver.wait(240) == 0, self._text()

    def close(self) -> None:
        """Leave no process."""
        self._driver.kill()
        self._driver.wait(30)
        self._end_ray()
        self._log.close()

    def _strike(self, victim: str) -> None:
        if victim == "worker":
            os.kill(pid_of(self._run, self._run.latest_attempt(), rank=1), signal.SIGKILL)
            return
        found = [process for process in self._victims().children(recursive=True) if _is_victim(process, victim)]
        assert found, f"there is no {victim}"
        rng = random.Random(self._run.path.name)
        rng.choice(sorted(found, key=lambda process: process.cmdline())).kill()

    def _victims(self) -> psutil.Process:
        """Whose descendants may be struck."""
        return psutil.Process()

    _folder = ROOT
    """In which the driver is started."""

    def _start_ray(self) -> None:
        """Where it is not the driver's own."""

    def _end_ray(self) -> None:
        """The same."""

    def _variables(self) -> dict[str, str]:
        return {}

    def _start_driver(self) -> "subprocess.Popen[bytes]":
        variables = {**environment(), **self._variables()}
        return subprocess.Popen(self._command, stdout=self._log, stderr=self._log, env=variables, cwd=self._folder)

    def _reaches(self, step: int) -> bool:
        def reached() -> bool:
            assert not self._driver.poll(), f"the driver ended by itself\n{self._text()}"
            lines = metrics(self._run, "words")
            return self._driver.poll() == 0 or any(
                line["attempt"] >= self._attempt and line["step"] >= step for line in lines
            )

        wait_until(reached, 200, f"step {step} was not reached\n{self._text()}")
        return self._driver.poll() is None

    def _text(self) -> str:
        return Path(self._log.name).read_text()[-3000:]


class OwnJob(RayJob):
    """Without an address, the driver starts a Ray of its own: here, where little is as Ray would like it."""

    name = "own"
    victims = (*PROCESSES, SURVIVED)
    first = ("control store", "process that speaks to Ray", "raylet", SURVIVED)

    def _start_ray(self) -> None:
        self._folder = self._run.path.with_suffix(".cwd")
        for name in ("datasets", "sft", "launcher"):
            (self._folder / name).mkdir(parents=True)
            (self._folder / name / "__init__.py").write_text("raise ImportError('this is not the program')\n")
        self._long = self._folder / ("long" * 40)
        self._long.mkdir()

    def _victims(self) -> psutil.Process:
        return psutil.Process(self._driver.pid)

    def _variables(self) -> dict[str, str]:
        return {"TMPDIR": str(self._long), "HOME": "/proc/nowhere"}


class ClusterJob(RayJob):
    """A cluster of a head without room for a worker, and two nodes with room for one each."""

    name = "cluster"
    victims = ("worker", "controller", SURVIVED, "driver", "node", "node's agent", "head", "process that speaks to Ray")
    first = ("head", "node", "controller", "driver")

    def _start_ray(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port = server.getsockname()[1]
        self._start_cluster()

    def _start_cluster(self) -> None:
        arguments = {"num_cpus": 0, "gcs_server_port": self._port}
        self._cluster = Cluster(initialize_head=True, head_node_args=arguments)
        for _ in range(2):
            self._cluster.add_node(num_cpus=1)

    def _end_ray(self) -> None:
        self._cluster.shutdown()

    def _variables(self) -> dict[str, str]:
        # A lost head is noticed; Ray's default is a minute.
        return {"RAY_ADDRESS": self._cluster.address, "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}

    def _strike(self, victim: str) -> None:
        if victim.startswith("node"):
            node = next(iter(self._cluster.worker_nodes))
            if victim == "node":
                self._cluster.remove_node(node, allow_graceful=False)
            else:
                self._end_agent(node)
            self._cluster.add_node(num_cpus=1)  # as whoever runs the cluster does
        elif victim == "driver":
            self._driver.kill()
            self._driver.wait(30)
            self._driver = self._start_driver()
        elif victim == "head":
            # As under Slurm, it comes back at its address, with nodes that know nothing of the cluster before.
            self._cluster.head_node.kill_gcs_server(check_alive=False)
            self._cluster.head_node.kill_raylet(check_alive=False)
            self._cluster.shutdown()
            self._start_cluster()
        else:
            super()._strike(victim)

    def _end_agent(self, node: Node) -> None:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        (agent,) = (p for p in raylet.children() if _is_victim(p, "node's agent"))
        agent.kill()
        raylet.wait(60)
        self._cluster.remove_node(node)


def _is_victim(process: psutil.Process, victim: str) -> bool:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    if victim != SURVIVED:
        return PROCESSES[victim] in line and (victim != "raylet" or process.name() == "raylet")
    known = [PROCESSES[name] for name in ("worker", "controller", "node's agent")]
    return line.startswith("ray::") and not line.startswith((*known, "ray::RuntimeEnvAgent", "ray::IDLE"))
