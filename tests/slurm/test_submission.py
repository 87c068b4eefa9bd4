"""Before a job is queued: what Slurm says of it, and what it would be."""

import re

import pytest

from tests.cluster.running import wait_until
from tests.slurm.conftest import WriteConfig, run_of, submitted
from tests.slurm.lab import Lab

pytestmark = pytest.mark.long
STEPS = {"broad": 4, "words": 50}


def test_a_request_that_cannot_be_met_is_refused_with_slurms_reason(lab: Lab, write_config: WriteConfig) -> None:
    config = write_config("refused", STEPS)
    for overrides, reason in (
        (["cluster.cpus_per_worker=64"], "Requested node configuration is not available"),
        (["slurm.partition=gpu"], "invalid partition specified: gpu"),
        (["slurm.constraint=h100"], "Invalid feature specification"),
        (["slurm.options=['--no-such-option']"], "unrecognized option"),
    ):
        message = lab.sft("submit", "slurm", config, *overrides, code=2).stderr
        assert message.startswith("Slurm refuses the job: ")
        assert reason in message
        assert "Traceback" not in message
    assert lab.run("squeue", "--noheader", "--states=all", "--name=refused").stdout == ""


def test_what_would_wait_for_ever_or_have_no_time_is_cancelled_with_the_reason(
    lab: Lab, write_config: WriteConfig
) -> None:
    config = write_config("never", STEPS)
    for overrides, reason in (
        # Slurm's word for it is first one, and later the other.
        (
            ["slurm.time_limit_minutes=60"],
            r"forever \(Partition(Config|TimeLimit): partition short, time limit 01:00:00",
        ),
        ([], "the time limit that it gets is 00:05:00, and slurm.signal_before_end_seconds is 300"),
    ):
        message = lab.sft("submit", "slurm", config, "slurm.partition=short", *overrides, code=2).stderr
        assert re.match(r"Job \d+ is cancelled: .*" + reason, message)
    assert lab.run("squeue", "--noheader", "--states=PD,R", "--name=never").stdout == ""


def test_a_run_that_is_in_the_queue_is_not_queued_again_but_behind_it(lab: Lab, write_config: WriteConfig) -> None:
    config = write_config("twice", STEPS)
    (first,) = submitted(lab, config, "slurm.options=['--hold']")
    message = lab.sft("submit", "slurm", config, code=2).stderr
    assert f"is in the queue: job {first} is pending." in message
    (second,) = submitted(lab, config, f"slurm.options=['--dependency=afterany:{first}']")
    assert lab.job(second)["Reason"] == "Dependency"
    lab.run("scancel", first, second)
    third = submitted(lab, config, "slurm.options=['--hold']")
    lab.run("scancel", *third)


def test_paths_that_a_shell_would_read_otherwise_are_slurms_too(lab: Lab, write_config: WriteConfig) -> None:
    folder = lab.shared / "a \"b\" 'c' #d; %e ü"
    folder.mkdir()
    config = write_config("odd", STEPS, run={"dir": str(folder / "odd")}, slurm={"setup": "exit 7"})
    (job_id,) = submitted(lab, config)
    wait_until(lambda: lab.job(job_id)["JobState"] == "FAILED", 60, "the job has not ended")
    assert lab.job(job_id)["ExitCode"] == "7:0"
    assert [path.name for path in (folder / "odd/slurm").glob("*.log")] == [f"odd-{job_id}.log"]


def test_a_dry_run_prints_a_script_that_slurm_takes_and_does_nothing(lab: Lab, write_config: WriteConfig) -> None:
    config = write_config("dry", STEPS)
    options = ["slurm.options=['--comment=two words', '--no-kill']", "slurm.exclusive=true", "slurm.partition=high"]
    script = lab.sft("submit", "slurm", config, *options, "--dry-run").stdout
    assert not run_of(config).path.exists()
    path = lab.shared / "dry.sbatch"
    path.write_text(script)
    job_id = lab.run("sbatch", "--parsable", "--hold", path, config).stdout.strip()
    job = lab.run("scontrol", "show", "job", job_id).stdout
    lab.run("scancel", job_id)
    for words in (
        "Partition=high",
        "NumNodes=2-2",
        "Comment=two words",
        "Requeue=1",
        "CPUs/Task=2",
        "OverSubscribe=NO",
    ):
        assert words in job
