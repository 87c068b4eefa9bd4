"""`sft submit slurm`: a job's plan becomes a batch script, which Slurm checks and queues.

The script is `slurm/ray_cluster.sbatch`, with its two user parts written from the plan and the config. The rest is the
same for every job, so a script written by hand behaves like one written here.

The job reads a copy of the resolved config. Otherwise a job that is requeued after days would go on with whatever the
file says by then.
"""

import hashlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from launcher.plan import JobPlan, plan_job
from launcher.submission.portable_job import render_config
from sft.absolute_paths import absolute_paths
from sft.atomic_files import now_on_file_system, write_text
from sft.config_file import ConfigError
from sft.config_rules import Problem
from sft.errors import UserError
from sft.job_config import JobConfig, SlurmConfig
from sft.run_folder import RunFolder
from sft.run_lock import read_holder
from sft.training.run_record import claim_run_folder

TEMPLATE = Path(__file__).with_name("ray_cluster.sbatch")

_LINE = re.compile(r"^# ----.*\n", re.MULTILINE)
"""What differs between jobs follows the first and the third of these four lines: options of sbatch, and shell lines."""

_NEVER = re.compile(
    r"Partition(Config|TimeLimit|NodeLimit)|BadConstraints|Invalid(Account|QOS)|(Account|QOS)NotAllowed"
    r"|(QOS|Association)TimeLimit|(QOS|Assoc)(Max|Grp)?\w*Per(Job|Node)(Limit)?|QOSMin\w+"
)
"""Reasons for which a job waits in Slurm forever: no job that ends makes room for it."""

_UNREADABLE = re.compile(r"[\\\x00-\x1f]")

_LOOKS = 4
"""How often to look at a job that was just queued, a second apart, until Slurm says what it waits for."""

_LONGEST_NAME = 200
"""The limit for a job's name, in bytes: files are named after it, and a file name has at most 255."""


def submit(job: JobConfig, origin: str, dry_run: bool, console: Console) -> None:
    """Queue a job, or one for each stage, and say how to follow and end it.

    Args:
        job: the job.
        origin: the file of its config, for messages.
        dry_run: print the script and the commands, and do nothing.
        console: where all of it is shown.

    Raises:
        UserError: Slurm refuses the request or could never meet it, there is no Slurm here, the run is under way, its
            folder cannot be written, or the config holds a secret or something that Slurm would read differently.
    """
    job = job.model_copy(update={"sft": absolute_paths(job.sft)})
    run = RunFolder(job.sft.run.dir)
    if problems := list(find_problems(job)):
        raise ConfigError(origin, problems, job.lines)
    config_text = render_config(job, origin)
    # Named by its content: what an earlier job reads stays as it is.
    digest = hashlib.blake2b(config_text.encode(), digest_size=4).hexdigest()
    config = run.slurm / f"{job.sft.run.name}-{digest}.yaml"
    script = run.slurm / f"{job.sft.run.name}.sbatch"
    text = render_script(plan_job(job), job.slurm, run.slurm)
    stages = _stages(job)
    if dry_run:
        commands = [shlex.join(_command(job, script, config, stage)) for stage in stages]
        sys.stdout.write(text + "".join(f"# {command}\n" for command in commands))
        return
    claim_run_folder(run)
    try:
        run.slurm.mkdir(parents=True, exist_ok=True)
        if not any(option.startswith(("--dependency", "-d")) for option in job.slurm.options):
            _refuse_if_under_way(run)
            run.stop_file.unlink(missing_ok=True)  # of an earlier job; one that is there from now on means this one
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
        why = _look_at_queued(before, job.slurm.signal_before_end_seconds)
        _say(_told(before, _job_name(job, stage), run, why), console)


def render_script(plan: JobPlan, slurm: SlurmConfig, logs: Path) -> str:
    """The batch script of a job.

    Args:
        plan: what the job asks for.
        slurm: how it asks Slurm for it.
        logs: the folder for the output; a job writes one file for all its attempts.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    first, second, third, fourth = _LINE.finditer(template)
    output = f"--output={str(logs).replace('%', '%%')}/%x-%j.log"
    options = [f"#SBATCH {shlex.quote(option)}\n" for option in (*_options(plan, slurm), output, *slurm.options)]
    # The programs beside this Python come first; the lines of `setup` may put others before them.
    shell = [f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n"]
    shell += [f"{slurm.setup.rstrip()}\n"] if slurm.setup.strip() else []
    shell.append(f"container=({shlex.join(slurm.container)})\n")
    fixed = template[: first.end()], template[second.start() : third.end()], template[fourth.start() :]
    return "".join((fixed[0], *options, fixed[1], *shell, fixed[2]))


def find_problems(job: JobConfig) -> Iterator[Problem]:
    """What Slurm or the shell would read differently than it is meant."""
    name = max((_job_name(job, stage) for stage in _stages(job)), key=lambda name: len(name.encode()))
    if len(name.encode()) > _LONGEST_NAME:
        rule = f"names the job in Slurm and its files here, and is longer than {_LONGEST_NAME} bytes"
        yield Problem("run.name", name, rule, "choose a shorter one")
    if _UNREADABLE.search(str(job.sft.run.dir)):
        rule = "is in the name of the job's log, where \\ and line ends mean something else to Slurm"
        yield Problem("run.dir", str(job.sft.run.dir), rule, "choose another path")
    fields = {field: getattr(job.slurm, field) or "" for field in ("partition", "account", "qos", "constraint")}
    fields |= {f"options.{i}": option for i, option in enumerate(job.slurm.options)}
    for field, value in fields.items():
        if _UNREADABLE.search(value):
            rule = "is a line of the batch script, where \\ and line ends mean something else to Slurm"
            yield Problem(f"slurm.{field}", value, rule, "leave them out")
    for i, option in enumerate(job.slurm.options):
        path = f"slurm.options.{i}"
        if not option.startswith("-"):
            yield Problem(path, option, "does not begin with -", "give option and value as one, such as --nice=100")
        if option.startswith(("--array", "-a")) and not option.endswith("%1"):
            rule = "would let several jobs train in one run folder at a time"
            yield Problem(path, option, rule, "end it with %1, for one after another, or give each a run of its own")


def _options(plan: JobPlan, slurm: SlurmConfig) -> list[str]:
    least, most = (number // slurm.workers_per_node for number in (plan.min_workers, plan.max_workers))
    cpus, gpus = (number // plan.max_workers * slurm.workers_per_node for number in (plan.cpus, plan.gpus))
    given = {
        "nodes": str(most) if least == most else f"{least}-{most}",
        # With a number of tasks, Slurm gives the fewest nodes of a range, not as many as it can.
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


def _stages(job: JobConfig) -> list[str | None]:
    """For each queued job, in order, the last stage that it trains; None: the last of all."""
    return [stage.name for stage in job.sft.stages] if job.slurm.jobs == "stages" else [None]


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
            f"The command was: {shlex.join(command)}\n"
            "Change `cluster` and `slurm` in the config; `sinfo -o '%P %a %l %D %c %m %G %f'` shows what there is."
        )
    return done


def _refuse_if_under_way(run: RunFolder) -> None:
    way_out = "Wait for it or stop it; to queue a job after it, give slurm.options a --dependency."
    held = read_holder(run.lock)
    if held is not None and held.is_alive(now_on_file_system(run.slurm)):
        raise UserError(f"The run in {run.path} is under way: {held.who}. {way_out}")
    for line in _run(["squeue", "--me", "--noheader", "--format=%i|%T|%o"]).stdout.splitlines():
        job_id, state, command = line.split("|", 2)
        if command.startswith(f"{run.slurm}/"):
            raise UserError(f"The run in {run.path} is in the queue: job {job_id} is {state.lower()}. {way_out}")


def _look_at_queued(job_id: str, signal_seconds: int) -> str:
    """What a job waits for, in Slurm's word. A job that can never start is cancelled: sbatch says `to start at …` even
    for a job that the limits of its partition, account or QOS never let start.

    Raises:
        UserError: the job is cancelled.
    """
    for _ in range(_LOOKS):
        try:
            said = _run(["scontrol", "show", "job", "--oneliner", job_id]).stdout
        except UserError:
            return "None"  # the job is queued nevertheless
        fields = dict(word.partition("=")[::2] for word in said.split())
        limit, why = fields.get("TimeLimit", ""), fields.get("Reason", "None")
        if why != "None" or fields.get("JobState") != "PENDING":
            break
        time.sleep(1)
    if _NEVER.fullmatch(why):
        problem = f"it would wait forever ({why}: partition {fields['Partition']}, time limit {limit})"
    elif (seconds := limit_seconds(limit)) is not None and seconds <= signal_seconds:
        problem = f"the time limit that it gets is {limit}, and slurm.signal_before_end_seconds is {signal_seconds}"
    else:
        return why
    _run(["scancel", job_id])
    raise UserError(
        f"Job {job_id} is cancelled: {problem}.\n"
        "Change `cluster` and `slurm` in the config; `scontrol show partition` and, for accounts and QOS, "
        "`sacctmgr show qos,assoc` show the limits."
    )


def limit_seconds(limit: str) -> int | None:
    """The seconds of `1-02:03:04` or `02:03:04`; None if Slurm names no time."""
    if (found := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)) is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def _told(job_id: str, job_name: str, run: RunFolder, why: str) -> str:
    return "\n".join(
        (
            f"Job {job_id} ({job_name}) is queued.",
            *([] if why == "None" else [f"  it waits for              {why}"]),
            f"  follow                    tail -F {shlex.quote(f'{run.slurm}/{job_name}-{job_id}.log')}",
            f"  its place in the queue    squeue --jobs {job_id} --start",
            f"  save, and queue it again  scancel --batch --signal=USR1 {job_id}",
            f"  save, and end it          touch {shlex.quote(str(run.stop_file))}",
            f"  end it                    scancel {job_id}",
        )
    )


def _say(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
