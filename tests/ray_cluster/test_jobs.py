"""Jobs on a Ray cluster of three machines outlive the machine that submits them, and those that they run on."""

import subprocess
from pathlib import Path

import pytest

from sft.checkpoint.local_storage import published_steps
from sft.run_folder import RunFolder
from tests.cluster.running import SFT, metrics, run_to_end, wait_until
from tests.cluster.test_elastic import wait_for_size
from tests.cluster.test_killed import status
from tests.ray_cluster.conftest import HEAD, LAPTOP, WORKERS, RayCluster, WriteConfig, config_of

pytestmark = pytest.mark.long
END_SECONDS = 250


def test_the_laptop_goes_away_and_the_job_ends_as_if_it_were_there(
    ray_cluster: RayCluster, write_config: WriteConfig, tmp_path: Path
) -> None:
    run = write_config("alone", {"broad": 4, "words": 60}, workers=2, preflight=True)
    submit = ["submit", "ray", config_of("alone"), "--address", ray_cluster.dashboard]
    # Only who has the token can submit, and the dashboard has one address. What is bound to all, as *, wants the token.
    assert "Authentication required" in ray_cluster.sft(LAPTOP, *submit, code=2, RAY_AUTH_MODE="disabled")
    addresses = [line.split()[3] for line in ray_cluster.nodes.run(HEAD, "ss", "-Hltn").stdout.splitlines()]
    assert [address for address in addresses if address.endswith(":8265")] == [ray_cluster.dashboard[len("http://") :]]
    assert [address for address in addresses if address.startswith("0.0.0.0:")] == []

    laptop = started_on_laptop(ray_cluster, submit, tmp_path / "laptop.log")
    wait_for_size(run, 2, END_SECONDS)
    assert "job alone-1 is RUNNING" in ray_cluster.sft(LAPTOP, *submit, code=2)
    wait_until(lambda: "broad  step 4/4" in (tmp_path / "laptop.log").read_text(), 60, "the log is not followed")
    ray_cluster.nodes.kill(LAPTOP)
    assert laptop.wait(30) != 0
    assert status(run)["state"] == "running"

    wait_until(lambda: "succeeded" in ray_cluster.jobs("status", "alone-1"), END_SECONDS, "the job did not end")
    assert (status(run)["state"], status(run)["attempt"]) == ("finished", 1)
    run_to_end([*SFT, "verify", str(run.path)])
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert [path for path in files if ray_cluster.token.encode() in path.read_bytes()] == []
    assert ray_cluster.token not in ray_cluster.jobs("list") + ray_cluster.jobs("logs", "alone-1")
    ray_cluster.up(LAPTOP)


def test_a_node_is_lost_and_one_joins_and_a_stop_saves(ray_cluster: RayCluster, write_config: WriteConfig) -> None:
    run = write_config("elastic", {"broad": 4, "words": 5000}, workers=[1, 2])
    submit = ["submit", "ray", config_of("elastic"), "--address", ray_cluster.dashboard, "--detach"]
    ray_cluster.sft(LAPTOP, *submit)
    wait_for_size(run, 2, END_SECONDS)
    ray_cluster.nodes.kill(WORKERS[1])
    wait_for_size(run, 1, END_SECONDS)
    ray_cluster.up(WORKERS[1])
    wait_for_size(run, 2, END_SECONDS)
    assert "node3" in status(run)["restarts"][0]["why"]
    latest = run.latest_attempt()
    ray_cluster.nodes.cut_off(WORKERS[1])
    wait_for_size(run, 1, END_SECONDS)
    why = next(restart["why"] for restart in status(run)["restarts"] if restart["attempt"] == latest + 1)
    assert "node3" in why, why
    assert "node2" not in why, "the rank that is left is to blame for nothing"
    ray_cluster.nodes.kill(WORKERS[1])
    ray_cluster.up(WORKERS[1])
    wait_for_size(run, 2, END_SECONDS)

    assert "was stopped" in ray_cluster.jobs("stop", "elastic-1")
    assert status(run)["state"] == "stopped"
    assert newest_checkpoint(run) == metrics(run, "words")[-1]["step"] + 1, "the checkpoint is of the last step"
    run_to_end([*SFT, "verify", str(run.path)])


def test_the_head_is_lost_and_the_job_goes_on_in_the_next_cluster(
    ray_cluster: RayCluster, write_config: WriteConfig, tmp_path: Path
) -> None:
    run = write_config("head", {"broad": 4, "words": 120}, workers=2)
    submit = ["submit", "ray", config_of("head"), "--address", ray_cluster.dashboard]
    ray_cluster.sft(LAPTOP, *submit, "--detach")
    wait_until(lambda: num_steps(run) >= 10, END_SECONDS, "it does not train")
    for node in (HEAD, *WORKERS):
        ray_cluster.nodes.kill(node)
    saved = newest_checkpoint(run)
    for node in (HEAD, *WORKERS):
        ray_cluster.up(node)

    laptop = started_on_laptop(ray_cluster, submit, tmp_path / "laptop.log")
    assert laptop.wait(END_SECONDS) == 0, (tmp_path / "laptop.log").read_text()
    assert status(run)["state"] == "finished"
    assert [line["step"] for line in metrics(run, "words") if line["attempt"] == 2] == list(range(saved, 120))
    run_to_end([*SFT, "verify", str(run.path)])


def started_on_laptop(cluster: RayCluster, arguments: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as file:
        return cluster.nodes.start(LAPTOP, "python", "-m", "launcher", *arguments, variables=cluster.client, log=file)


def num_steps(run: RunFolder) -> int:
    return len(metrics(run, "words"))


def newest_checkpoint(run: RunFolder) -> int:
    return max(published_steps(run.stage(1, "words").checkpoints))
