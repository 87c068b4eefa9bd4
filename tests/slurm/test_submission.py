"""Before a job is queued: what Slurm says of it, and what it would be."""

import pytest

from tests.slurm.conftest import WriteConfig, run_of
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
