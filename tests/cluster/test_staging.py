"""On a Ray cluster each node fetches the packs of its own workers to its own disk, after a change of size those that it
lacks, and nothing for a worker that is gone. Bytes are counted on every node.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sft.atomic_files import is_published
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.run_events import read_events
from sft.run_folder import RunFolder
from sft.world import World
from tests.cluster.conftest import WriteConfig, joined
from tests.cluster.fetching import start_worker
from tests.cluster.running import ROOT, SFT, environment, wait_until
from tests.data.planned import Planned, nodes_of, publish_planned
from tests.webhook import webhook


class Machine(NamedTuple):
    """A node of the cluster, and the temporary folder that it has to itself."""

    ray_id: str
    disk: Path


@pytest.fixture(scope="module")
def machines(head: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, list[Machine]]]:
    disks = [tmp_path_factory.mktemp(f"node{number}") for number in range(2)]
    # Ray Train tells machines apart by their addresses.
    nodes = [
        {"num_cpus": 2, "node_ip_address": f"127.0.0.{2 + number}", "env_vars": {"TMPDIR": str(disk)}}
        for number, disk in enumerate(disks)
    ]
    with joined(head, *nodes) as there:
        yield head, [Machine(node.node_id, disk) for node, disk in zip(there, disks, strict=True)]


@pytest.fixture
def connected(machines: tuple[Cluster, list[Machine]]) -> Iterator[list[Machine]]:
    """The machines, with this process as a driver."""
    variables = {"PYTHONPATH": str(ROOT)}
    ray.init(address=machines[0].address, log_to_driver=False, runtime_env={"env_vars": variables})
    yield machines[1]
    ray.shutdown()


class Trained(NamedTuple):
    """A job that `sft train` has trained on two nodes, and what it has posted."""

    run: RunFolder
    said: str
    alerts: list[dict[str, Any]]


@pytest.fixture(scope="module")
def trained(machines: tuple[Cluster, list[Machine]], write_config: WriteConfig) -> Trained:
    config = write_config("staged")
    # Two CPUs a worker: no node has room for both. The nodes' addresses would not pass for those of real machines.
    command = [*SFT, "train", str(config), "data.staging=node_local"]
    command += ["cluster.cpus_per_worker=2", "cluster.preflight=false", "stages.broad.budget.steps=1"]
    command += ["checkpoint.every_steps=50", "evaluate.max_examples_per_task=1"]
    command += ["logging.tensorboard=true", "alerts.url=$WEBHOOK"]
    with webhook() as hook:
        variables = {**environment(), "RAY_ADDRESS": machines[0].address, "WEBHOOK": hook.url}
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=variables, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return Trained(RunFolder(config.with_suffix("")), done.stdout, hook.alerts)


@pytest.mark.long
def test_each_node_has_the_packs_of_its_worker_on_its_disk_while_it_trains(
    machines: tuple[Cluster, list[Machine]], trained: Trained
) -> None:
    run = trained.run
    assert f"on the Ray cluster at {machines[0].address}" in trained.said.replace("\n", " ")
    (store,) = filter(is_published, (run.path.parent / "cache/tokens").iterdir())
    plan = run.stage(1, "words").packs
    planned = Planned(store, plan, TokenStore.open(store), PackPlan.open(plan))
    for rank in range(2):
        report = json.loads(run.attempt(1).staging_report(run.stage(1, "words"), rank).read_text())
        own = planned.fed_by(World(rank, 2), packs_per_micro_batch=1)
        assert (report["is_complete"], report["num_there"]) == (True, 0)
        assert (report["num_fetched"], report["bytes_fetched"]) == (len(own), planned.num_bytes(own))
    (_, said) = [event.facts for event in read_events(run.attempt(1)) if event.kind == "staging"]
    assert said["num_staged"] + said["num_direct"] == len(planned.plan)
    assert said["num_staged"] > 0
    assert [list(path.iterdir()) for _, disk in machines[1] for path in disk.glob("sft-staging-*")] == [[], []]


@pytest.mark.long
def test_the_driver_sends_steps_and_evaluations_to_tensorboard_and_posts_the_end(trained: Trained) -> None:
    assert [alert["text"] for alert in trained.alerts] == ["staged: finished"]
    run = trained.run
    board = EventAccumulator(str(run.tensorboard / "words"))
    board.Reload()
    lines = [json.loads(line) for line in run.stage(1, "words").metrics.read_text().splitlines()]
    # The first step of the second stage follows the last of the first.
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [
        (2 + line["step"], pytest.approx(line["loss"])) for line in lines
    ]
    (heldout,) = board.Scalars("eval/loss")
    measured = json.loads((run.evaluations / "1-words.json").read_text())["loss"]
    assert (heldout.step, heldout.value) == (1 + len(lines), pytest.approx(measured))


@pytest.mark.long
def test_after_two_nodes_one_and_again_two_each_has_fetched_what_it_lacked(
    connected: list[Machine], tmp_path: Path
) -> None:
    planned = publish_planned(tmp_path)
    has: dict[str, set[int]] = {"n0": set(), "n1": set()}
    workers = [start_worker(machine.ray_id) for machine in connected]
    for num_nodes, ranks_per_node, first_step in ((2, 2, 0), (1, 2, 3), (2, 1, 5)):
        worlds = nodes_of(num_nodes, ranks_per_node)
        orders = [planned.order(world, None, first_step) for world in worlds]
        found = ray.get([w.fetch.remote(o) for w, o in zip(workers, orders, strict=False)], timeout=120)
        for world, machine, report in zip(worlds, connected, found, strict=False):
            wanted = planned.fed_by(world, first_step)
            assert report.is_complete
            assert report.bytes_fetched == planned.num_bytes(wanted - has[world.node])
            assert report.bytes_there == planned.num_bytes(wanted & has[world.node])
            has[world.node] |= wanted
            assert planned.there(machine.disk) == has[world.node]


@pytest.mark.long
def test_the_fetching_ends_with_the_worker_that_it_is_for(connected: list[Machine], tmp_path: Path) -> None:
    planned = publish_planned(tmp_path, epochs=300)
    machine = connected[0]
    worker = start_worker(machine.ray_id)
    worker.fetch.remote(planned.order(World(), None))
    wait_until(lambda: num_there(planned, machine) > 0, 60, "nothing is fetched")
    ray.kill(worker)
    counts = [-1] * 5

    def is_over() -> bool:
        counts.append(num_there(planned, machine))
        return counts[-1] == counts[-6]

    wait_until(is_over, 10, "it goes on")
    assert 0 < counts[-1] < len(planned.plan)


def num_there(planned: Planned, machine: Machine) -> int:
    path = planned.staged(machine.disk).folder / "digests"
    return int(np.count_nonzero(np.fromfile(path, np.uint64)))
