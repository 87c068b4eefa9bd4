"""What the batch script does on a real Slurm before, and instead of, training."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sft.run_folder import RunFolder
from tests.cluster.running import ROOT, wait_until
from tests.slurm.conftest import WriteConfig, log_of, run_of, submitted
from tests.slurm.lab import Lab

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
SCRIPT = ROOT / "slurm" / "ray_cluster.sbatch"
STEPS = {"broad": 4, "words": 4}
NEVER_READY = "for second in {1..200}; do sleep 1; done"
IS_UP = "echo the setup begins"


@pytest.fixture(scope="module")
def hurried(lab: Lab, write_config: WriteConfig) -> Iterator[tuple[Path, str]]:
    """A job whose time limit is hardly longer than what it wants to be told before; it is at work beside the others."""
    config = write_config("hurried", STEPS, cluster={"workers": 1}, slurm={"setup": NEVER_READY})
    limits = ["slurm.partition=short", "slurm.signal_before_end_seconds=299"]
    (job_id,) = submitted(lab, config, *limits)
    yield config, job_id
    lab.run("scancel", job_id)


def failed_log(lab: Lab, config: Path, *overrides: str, exit_code: str) -> str:
    """The log of a job that ends with this exit code within a minute."""
    (job_id,) = submitted(lab, config, *overrides)
    wait_until(lambda: lab.job(job_id)["JobState"] == "FAILED", 60, f"the job is {lab.job(job_id)['JobState']}")
    assert lab.job(job_id)["ExitCode"] == exit_code
    return log_of(config, job_id)


def test_where_there_is_no_ray_the_job_ends_at_once_with_the_reason(
    lab: Lab, write_config: WriteConfig, hurried: tuple[Path, str]
) -> None:
    config = write_config("no_ray", STEPS, slurm={"container": ["env", "PATH=/usr/sbin:/usr/bin"]})
    started = time.monotonic()
    log = failed_log(lab, config, exit_code="1:0")
    said = r"Ray could not be started \(number of the node: reason\): [01]: there is no ray in PATH, which is /usr/sbin"
    assert re.search(said, log)
    assert time.monotonic() - started < 30


def test_a_line_of_setup_that_fails_ends_the_job_with_a_message(
    lab: Lab, write_config: WriteConfig, hurried: tuple[Path, str]
) -> None:
    config = write_config("no_module", STEPS, slurm={"setup": "export SEEN=1\nmodule load cuda"})
    log = failed_log(lab, config, exit_code="2:0")
    (line,) = re.findall(r"setup: line (\d+) of the script failed", log)
    script = next(run_of(config).slurm.glob("*.sbatch")).read_text().splitlines()
    assert script[int(line) - 1] == "module load cuda"


def test_a_job_of_an_array_that_is_told_to_go_is_queued_again_alone(
    lab: Lab, hurried: tuple[Path, str], tmp_path: Path
) -> None:
    log = lab.shared / "array-%a.log"
    lines = SCRIPT.read_text().replace("container=()", f"container=()\n{IS_UP}\n{NEVER_READY}")
    script = lab.shared / "array.sbatch"
    script.write_text(lines)
    options = ["--parsable", "--array=0-1", "--nodes=1", "--cpus-per-task=1", "--gpus-per-node=0", "--mem=100M"]
    number = lab.run("sbatch", *options, f"--output={log}", script, "none.yaml").stdout.strip()
    first, last = (f"{number}_{i}" for i in range(2))
    # Slurm says that a job is running before its shell is there, and then a signal to it is lost.
    logs = [lab.shared / f"array-{i}.log" for i in range(2)]
    wait_until(lambda: all(path.is_file() and path.read_text() for path in logs), 60, "they do not run")
    lab.run("scancel", "--batch", "--signal=USR1", last)
    wait_until(lambda: lab.job(last)["Restarts"] == "1", 60, "it was not queued again")
    assert (lab.job(first)["Restarts"], lab.job(first)["JobState"]) == ("0", "RUNNING")
    lab.run("scancel", number)


def test_told_to_go_while_its_driver_is_started_a_job_is_queued_again(lab: Lab, write_config: WriteConfig) -> None:
    config = write_config("at_once", {"broad": 4, "words": 2000}, cluster={"workers": 1})
    started = "driver=$!\n"
    assert SCRIPT.read_text().count(started) == 1
    script, log = lab.shared / "at_once.sbatch", lab.shared / "at_once.log"
    script.write_text(SCRIPT.read_text().replace(started, f"{started}kill -USR1 $$\n"))
    options = ["--parsable", "--nodes=1", "--cpus-per-task=1", "--gpus-per-node=0", "--mem=2G", f"--output={log}"]
    job_id = lab.run("sbatch", *options, script, config).stdout.strip()
    wait_until(lambda: lab.job(job_id)["Restarts"] == "1", 90, "it was not queued again")
    lab.run("scancel", job_id)
    assert "USR1: save, stop, requeue" in log.read_text()
    assert not run_of(config).has_trained()


def test_a_stop_file_that_is_made_while_the_job_starts_counts(
    lab: Lab, write_config: WriteConfig, hurried: tuple[Path, str]
) -> None:
    config = write_config("stopped_early", {"broad": 4, "words": 2000}, cluster={"workers": 1, "preflight": True})
    run = run_of(config)
    (job_id,) = submitted(lab, config)
    wait_until(lambda: "attempt 1, on" in log_so_far(run), 60, "the job does not start")
    run.stop_file.touch()
    wait_until(lambda: lab.job(job_id)["JobState"] == "FAILED", 120, "the job is not stopped")
    assert lab.job(job_id)["ExitCode"] == "3:0"
    assert "Ended by STOP; no step is lost by it. The same command goes on." in log_of(config, job_id).replace(
        "\n", " "
    )
    assert not run.stop_file.exists(), "it is obeyed once"
    assert not run.has_trained()


def test_a_job_that_is_always_told_to_go_before_it_trains_ends_with_the_reason(
    lab: Lab, hurried: tuple[Path, str]
) -> None:
    config, job_id = hurried
    wait_until(lambda: lab.job(job_id)["JobState"] == "FAILED", 240, f"the job is {lab.job(job_id)['JobState']}")
    log = log_of(config, job_id)
    assert log.count("requeue, without a new checkpoint") == 3
    said = (
        r"not queued again: 3 times in a row it was told to go before it had a new checkpoint, now after \d+ s, with a "
    )
    assert re.search(said + "time limit of 5:00. Ask for more time", log)


def log_so_far(run: RunFolder) -> str:
    return "".join(path.read_text(errors="replace") for path in run.slurm.glob("*.log"))
