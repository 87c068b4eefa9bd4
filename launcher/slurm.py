"""`sft submit slurm`: a job's plan becomes a batch script, which Slurm checks and queues.

The script is `slurm/ray_cluster.sbatch` with the part between its lines written from the plan and the config. All else
of it is the same for every job, so one that was written by hand behaves like one that was written here.

The job reads a copy of the resolved config. Otherwise one that is queued again after days would go on with whatever
stands in the file by then.
"""

import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from launcher.plan import JobPlan, plan_job
from launcher.submission import render_config
from sft.atomic_files import write_text
from sft.errors import UserError
from sft.job_config import JobConfig, SlurmConfig
from sft.run_folder import RunFolder
from sft.training.run_record import anchor_paths, claim_run_folder

TEMPLATE = Path(__file__).with_name("ray_cluster.sbatch")

_LINE = re.compile(r"^# ----.*\n", re.MULTILINE)
"""Two of them enclose what differs between jobs."""


def submit(job: JobConfig, origin: str, dry_run: bool, console: Console) -> None:
    """Queue a job, or one for each stage, and say how to follow and end it.

    Args:
        job: the job.
        origin: the file of its config, for messages.
        dry_run: print the script and the commands, and do nothing.
        console: where all of it is shown.

    Raises:
        UserError: Slurm refuses the request, there is no Slurm here, the run folder cannot be written, or the config
            holds a secret.
    """
    job = job._replace(sft=anchor_paths(job.sft))
    run = RunFolder(job.sft.run.dir)
    config_text = render_config(job, origin)
    # Of this content: what an earlier job reads stays as it is.
    digest = hashlib.blake2b(config_text.encode(), digest_size=4).hexdigest()
    config = run.slurm / f"{job.sft.run.name}-{digest}.yaml"
    script = run.slurm / f"{job.sft.run.name}.sbatch"
    text = render_script(plan_job(job), job.slurm, run.slurm)
    stages = [stage.name for stage in job.sft.stages] if job.slurm.jobs == "stages" else [None]
    if dry_run:
        commands = [shlex.join(_command(job, script, config, stage)) for stage in stages]
        sys.stdout.write(text + "".join(f"# {command}\n" for command in commands))
        return
    claim_run_folder(run)
    try:
        write_text(config, config_text)
        write_text(script, text)
    except OSError as error:
        raise UserError(
            f"run.dir: nothing can be written to {run.slurm}: {error.strerror}. Give a folder that can be written to."
        ) from error
    program, *options = _command(job, script, config, stages[0])
    _say(_run([program, "--test-only", *options]).stderr.strip().removeprefix("sbatch: "), console)
    before: str | None = None
    for stage in stages:
        program, *options = _command(job, script, config, stage)
        wait = [] if before is None else [f"--dependency=afterok:{before}", "--kill-on-invalid-dep=yes"]
        before = _run([program, "--parsable", *wait, *options]).stdout.strip().partition(";")[0]
        _say(_told(before, _job_name(job, stage), run), console)


def render_script(plan: JobPlan, slurm: SlurmConfig, logs: Path) -> str:
    """The batch script of a job.

    Args:
        plan: what the job asks for.
        slurm: how it asks Slurm for it.
        logs: the folder for the output, in one file for all attempts of a job.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    first, last = _LINE.finditer(template)
    output = f"--output={str(logs).replace('%', '%%')}/%x-%j.log"
    lines = [f"#SBATCH {shlex.quote(option)}" for option in (*_options(plan, slurm), output, *slurm.options)]
    # The programs beside this Python; the lines of `setup` may put others before them.
    lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    lines += [slurm.setup.rstrip()] if slurm.setup.strip() else []
    lines.append(f"container=({shlex.join(slurm.container)})")
    return template[: first.end()] + "\n".join(lines) + "\n" + template[last.start() :]


def _options(plan: JobPlan, slurm: SlurmConfig) -> list[str]:
    least, most = (number // slurm.workers_per_node for number in (plan.min_workers, plan.max_workers))
    cpus, gpus = (number // plan.max_workers * slurm.workers_per_node for number in (plan.cpus, plan.gpus))
    given = {
        "nodes": str(most) if least == most else f"{least}-{most}",
        # With a number of tasks, Slurm gives the least nodes of a range, not as many as it can.
        "ntasks-per-node": "1" if least == most else None,
        "mincpus": None if least == most else str(cpus),
        "cpus-per-task": str(cpus),
        "gpus-per-node": str(gpus) if gpus else None,
        "mem": f"{slurm.memory_gib_per_node}G" if slurm.memory_gib_per_node else "0" if slurm.exclusive else None,
        "time": str(slurm.time_limit_minutes) if slurm.time_limit_minutes else None,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "signal": f"B:USR1@{slurm.signal_before_end_seconds}",
        "open-mode": "append",
    }
    flags = ["--requeue", "--exclusive"] if slurm.exclusive else ["--requeue"]
    return [f"--{name}={value}" for name, value in given.items() if value is not None] + flags


def _command(job: JobConfig, script: Path, config: Path, stage: str | None) -> list[str]:
    until = [] if stage is None else ["--until", stage]
    return ["sbatch", f"--job-name={_job_name(job, stage)}", str(script), str(config), *until]


def _job_name(job: JobConfig, stage: str | None) -> str:
    return job.sft.run.name if stage is None else f"{job.sft.run.name}-{stage}"


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            f"There is no {command[0]} here. Submit where Slurm's commands are, such as a login node; "
            "--dry-run prints the script anywhere."
        ) from None
    if done.returncode:
        said = [re.sub("^(sbatch: |error: |allocation failure: )*", "", line) for line in done.stderr.splitlines()]
        raise UserError(
            f"Slurm refuses the job: {'; '.join(said) or f'exit code {done.returncode}'}\n"
            f"Asked was: {shlex.join(command)}\n"
            "Change `cluster` and `slurm` in the config; `sinfo -o '%P %a %l %D %c %m %G %f'` shows what there is."
        )
    return done


def _told(job_id: str, job_name: str, run: RunFolder) -> str:
    return "\n".join(
        (
            f"Job {job_id} ({job_name}) is queued.",
            f"  follow                    tail -F {shlex.quote(f'{run.slurm}/{job_name}-{job_id}.log')}",
            f"  its place in the queue    squeue --jobs {job_id} --start",
            f"  save, and queue it again  scancel --batch --signal=USR1 {job_id}",
            f"  save, and end it          touch {shlex.quote(str(run.stop_file))}",
            f"  end it                    scancel {job_id}",
        )
    )


def _say(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
