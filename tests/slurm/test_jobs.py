"""Jobs on a real Slurm cluster, from their submission to their end, however that comes."""

import json
import re
from pathlib import Path

import pytest

from sft.atomic_files import is_published
from sft.checkpoint.local_storage import published_steps
from sft.run_folder import RunFolder
from tests.cluster.running import ROOT, metrics, wait_until
from tests.slurm.conftest import WriteConfig, log_of, run_of, submitted, wait_for_attempt
from tests.slurm.lab import Lab

# Generous: what a job takes is Ray's start, and the machine may have other work.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
END_SECONDS = 400

_SHOW_NODES = """
import json, ray
ray.init(log_to_driver=False, logging_level="ERROR")
print(json.dumps([node["Resources"] for node in ray.nodes()]))
"""


def test_a_job_trains_on_two_nodes_and_leaves_a_model_and_nothing_else(lab: Lab, write_config: WriteConfig) -> None:
    # Long enough to be looked at. What `setup` sets may neither reach the rest of the script nor show the token.
    shell = {"setup": "set -euxo pipefail"}
    config = write_config("plain", {"broad": 4, "words": 150}, slurm=shell, cluster={"preflight": True})
    run = run_of(config)
    (job_id,) = submitted(lab, config, "slurm.options=['--gpus-per-node=1', '--export=NONE']")
    wait_for_attempt(run, 1)
    nodes = lab.nodes_of(job_id)
    folder = f"/tmp/sft-ray-{job_id}"
    for node in nodes:
        assert lab.on_node(node, "stat", "-c", "%a", folder, f"{folder}/token").split() == ["700", "600"]
    # Ray has what Slurm gave, and shows it to nobody without the token.
    ask = ["env", f"RAY_ADDRESS={head_of(log_of(config, job_id))}", "RAY_AUTH_MODE=token"]
    program = ["python", "-c", _SHOW_NODES]
    known = lab.on_node(nodes[0], *ask, f"RAY_AUTH_TOKEN_PATH={folder}/token", *program)
    for resources in json.loads(known.splitlines()[-1]):
        assert (resources["CPU"], resources["GPU"], resources["memory"]) == (2, 1, 2 * 1024**3)
    assert "AuthenticationError" in lab.on_node(nodes[0], *ask, f"RAY_AUTH_TOKEN={'0' * 64}", *program, code=1)
    token = lab.on_node(nodes[0], "cat", f"{folder}/token").strip()
    assert len(token) == 64

    lab.wait_for_state(job_id, "COMPLETED", END_SECONDS)
    assert is_published(run.stage(1, "words").model)
    assert_nothing_is_left(lab, job_id, nodes)
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert [path for path in files if token.encode() in path.read_bytes()] == []


def test_told_to_stop_it_saves_and_queues_again_and_the_next_in_the_chain_waits(
    lab: Lab, write_config: WriteConfig
) -> None:
    config = write_config("chain", {"broad": 60, "words": 4}, slurm={"jobs": "stages", "setup": "set -eu"})
    run = run_of(config)
    first, second = submitted(lab, config)
    config.write_text("What stands here when the job is queued again is not its config.")
    wait_for_attempt(run, 1, "broad")
    lab.run("scancel", "--batch", "--signal=USR1", first)
    wait_until(lambda: lab.job(first)["Restarts"] == "1", 60, "the job was not queued again")
    assert lab.job(second)["Reason"] == "Dependency"
    lab.wait_for_state(first, "COMPLETED", END_SECONDS)
    assert run.stage(0, "broad").complete.is_file()
    assert not run.stage(1, "words").metrics.is_file()
    lab.wait_for_state(second, "COMPLETED", END_SECONDS)
    assert_finished(lab, run, config, first, attempts=2)
    assert [line["step"] for line in metrics(run, "broad")] == list(range(60)), "no step is lost by a stop"


def test_it_goes_on_after_a_preemption_and_a_power_cut(lab: Lab, write_config: WriteConfig) -> None:
    config = write_config("often", {"broad": 4, "words": 120})
    run = run_of(config)
    (job_id,) = submitted(lab, config)
    wait_for_attempt(run, 1)
    urgent(lab, job_id)
    wait_until(lambda: lab.job(job_id)["Restarts"] == "1", 90, "the preemption did not queue the job again")

    wait_for_attempt(run, 2)
    head = lab.nodes_of(job_id)[0]
    lab.kill_node(head)
    wait_until(lambda: lab.job(job_id)["Restarts"] == "2", 120, "the power cut did not queue the job again")
    wait_until(lambda: lab.job(job_id)["JobState"] == "RUNNING", 60, "the job does not start again")
    assert head not in lab.nodes_of(job_id)
    lab.up_node(head)
    lab.wait_for_state(job_id, "COMPLETED", END_SECONDS)
    assert_finished(lab, run, config, job_id, attempts=3)


def test_preempted_before_it_trains_it_comes_back_and_when_its_node_is_cut_off_it_waits_for_the_driver_there(
    lab: Lab, write_config: WriteConfig
) -> None:
    config = write_config("cut", {"broad": 4, "words": 60})
    run = run_of(config)
    with lab.without_a_word_before_preemption():
        (job_id,) = submitted(lab, config)
        # The driver is there, and its lock not yet, or just so: Python has not come further.
        wait_until(lambda: ".1 " in steps_of(lab, job_id), 60, "the driver does not start")
        urgent(lab, job_id)
        wait_until(lambda: lab.job(job_id)["Restarts"] == "1", 90, "the preemption did not queue the job again")
    assert "requeue, preempted" in log_of(config, job_id)
    assert not run.has_trained()

    wait_for_attempt(run, 1)
    head = lab.nodes_of(job_id)[0]
    lab.cut_off(head)
    wait_until(lambda: lab.job(job_id)["Restarts"] == "2", 120, "the lost node did not queue the job again")
    lab.wait_for_state(job_id, "COMPLETED", END_SECONDS)
    lab.join_again(head)
    assert_finished(lab, run, config, job_id, attempts=3)
    assert f"That is an earlier attempt of this job (lab {job_id}) and still at work: it is asked to end" in log_of(
        config, job_id
    ).replace("\n", " ")


def test_two_jobs_on_the_same_nodes_do_not_meet_and_one_goes_on_after_its_time_limit_until_it_is_cancelled(
    lab: Lab, write_config: WriteConfig
) -> None:
    configs = [write_config(name, {"broad": 4, "words": steps}) for name, steps in (("left", 2000), ("right", 40))]
    same = ["slurm.options=['--nodelist=node1,node2']", "slurm.time_limit_minutes=60"]
    same.append("slurm.signal_before_end_seconds=120")
    left, right = (submitted(lab, config, *same)[0] for config in configs)
    for config in configs:
        wait_for_attempt(run_of(config), 1)
    assert lab.nodes_of(left) == lab.nodes_of(right)
    assert head_of(log_of(configs[0], left)) != head_of(log_of(configs[1], right))

    hours, minutes, _ = lab.job(left)["RunTime"].split(":")
    # Less than two minutes are left, so Slurm says it when it looks, which is every half minute.
    lab.run("scontrol", "update", f"JobId={left}", f"TimeLimit={60 * int(hours) + int(minutes) + 2}")
    wait_until(lambda: lab.job(left)["Restarts"] == "1", 120, "the time limit did not queue the job again")
    lab.run("scontrol", "update", f"JobId={left}", "TimeLimit=60")
    lab.wait_for_state(right, "COMPLETED", END_SECONDS)
    assert_finished(lab, run_of(configs[1]), configs[1], right, attempts=1)

    run = run_of(configs[0])
    wait_for_attempt(run, 2)
    lab.run("scancel", left)
    wait_until(lambda: lab.job(left)["JobState"] == "CANCELLED", 60, "the job is not cancelled")
    assert_nothing_is_left(lab, left, ["node1", "node2"])
    steps = [(line["attempt"], line["step"]) for line in metrics(run, "words")]
    assert [step for _, step in steps] == list(range(len(steps))), "no step is lost by a stop"
    if lab.tracks_by_cgroup:
        assert log_of(configs[0], left).count("sft train: exit code 3") == 2
        assert max(published_steps(run.stage(1, "words").checkpoints)) == len(steps)


def test_a_script_submitted_by_hand_keeps_the_exit_code_of_a_job_that_fails(
    lab: Lab, write_config: WriteConfig
) -> None:
    config = write_config("wrong", {"broad": 4, "words": 4})
    log = lab.shared / "by_hand.log"
    options = ["--cpus-per-task=2", "--gpus-per-node=0", "--mem=2G", f"--output={log}"]
    script = ROOT / "slurm" / "ray_cluster.sbatch"
    done = lab.run("sbatch", "--parsable", *options, script, config, "stages.words.mixture.replay={nothing: 0.5}")
    job_id = done.stdout.strip()
    wait_until(lambda: lab.job(job_id)["JobState"] == "FAILED", 90, "the job has not failed")
    assert lab.job(job_id)["ExitCode"] == "2:0"
    assert lab.job(job_id)["Restarts"] == "0"
    assert "stages.1.mixture.replay" in log.read_text()
    assert_nothing_is_left(lab, job_id, ["node1", "node2"])


def urgent(lab: Lab, job_id: str) -> None:
    """A job that takes the nodes of this one."""
    nodes = ",".join(lab.nodes_of(job_id))
    options = ["--partition=high", "--exclusive", f"--nodelist={nodes}", "--nodes=2", "--output=none"]
    lab.run("sbatch", *options, "--wrap=true")


def steps_of(lab: Lab, job_id: str) -> str:
    return lab.run("squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i ").stdout


def assert_finished(lab: Lab, run: RunFolder, config: Path, job_id: str, attempts: int) -> None:
    """All is trained, each pack once, and the job's one log tells of each of its attempts."""
    log = log_of(config, job_id)
    assert [int(number) for number in re.findall(r", attempt (\d+), on ", log)] == list(range(1, attempts + 1))
    assert "Every pack was fed exactly once" in lab.sft("verify", run.path).stdout.replace("\n", " ")


def assert_nothing_is_left(lab: Lab, job_id: str, nodes: list[str]) -> None:
    """Neither its folder nor a process that names it."""
    for node in nodes:
        assert f"sft-ray-{job_id}" not in lab.on_node(node, "ls", "/tmp")
        assert f"sft-ray-{job_id}/" not in lab.on_node(node, "ps", "-eo", "args")


def head_of(log: str) -> str:
    """The address of Ray's head in the last attempt."""
    return re.findall(r"Ray's head: (\S+)", log)[-1]
