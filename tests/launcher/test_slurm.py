"""The batch script for Slurm, as it is written from a config. Real jobs with it: tests/slurm."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.cli import main
from launcher.plan import JobPlan, plan_job
from launcher.submission.slurm import TEMPLATE, find_problems, limit_seconds, render_script
from sft.job_config import SlurmConfig, load_job
from sft.run_folder import RunFolder
from sft.run_lock import run_lock

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
run: {name: small, dir: runs/small}
model: {path: owner/model}
data: {sources: [{name: only, path: owner/data, format: messages}]}
stages:
  - {name: broad, budget: {steps: 4}, optimizer: {lr: 1.0e-5}}
  - {name: narrow, budget: {steps: 4}, optimizer: {lr: 1.0e-5}}
train: {packs_per_step: 16}
cluster: {workers: [8, 16], gpus_per_worker: 1, cpus_per_worker: 6}
slurm: {workers_per_node: 4}
"""
PLAN = JobPlan(min_workers=1, max_workers=1, cpus=1, gpus=0, packs_per_step=1, stages=())
LINE = re.compile(r"^# ----.*\n", re.MULTILINE)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def script_of(config: Path, *overrides: str) -> str:
    job = load_job(config, overrides)
    return render_script(plan_job(job), job.slurm, Path("logs"))


def options_of(script: str) -> list[str]:
    return [shlex.split(line)[1] for line in script.splitlines() if line.startswith("#SBATCH ")]


def test_whole_nodes_are_asked_for_as_many_as_the_workers_fill(config: Path) -> None:
    expected = ["--nodes=2-4", "--mincpus=24", "--cpus-per-task=24", "--gpus-per-node=4"]
    expected += ["--signal=B:USR1@300", "--open-mode=append", "--requeue", "--output=logs/%x-%j.log"]
    assert options_of(script_of(config)) == expected
    options = options_of(script_of(config, "cluster.workers=12", "cluster.gpus_per_worker=0"))
    assert {"--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=24"} <= set(options)
    assert not [option for option in options if "gpus" in option]


def test_what_the_config_says_of_slurm_is_asked_for(config: Path) -> None:
    fields = {
        "time_limit_minutes": 90,
        "signal_before_end_seconds": 600,
        "memory_gib_per_node": 500,
        "exclusive": "true",
        "partition": "gpu",
        "account": "team",
        "qos": "long",
        "constraint": "a100&nvlink",
        "options": "['--comment=two words']",
    }
    script = script_of(config, *(f"slurm.{name}={value}" for name, value in fields.items()))
    wanted = ["--time=90", "--signal=B:USR1@600", "--mem=500G", "--exclusive", "--partition=gpu", "--account=team"]
    wanted += ["--qos=long", "--constraint=a100&nvlink", "--comment=two words"]
    assert set(wanted) <= set(options_of(script))
    assert "--mem=0" in options_of(script_of(config, "slurm.exclusive=true")), "all of a node that is the job's alone"


def test_all_but_the_part_between_the_lines_is_that_of_the_template(config: Path) -> None:
    template, script = TEMPLATE.read_text(), script_of(config)
    assert [LINE.split(template)[i] for i in (0, 2, 4)] == [LINE.split(script)[i] for i in (0, 2, 4)]
    assert LINE.findall(template) == LINE.findall(script)


def test_the_template_is_one_file_readable_and_asks_like_a_rendered_script(config: Path) -> None:
    template = ROOT / "slurm" / "ray_cluster.sbatch"
    assert template.read_text() == TEMPLATE.read_text()
    assert len(template.read_text().splitlines()) <= 180
    names = {option.partition("=")[0] for option in options_of(template.read_text())}
    rendered = options_of(script_of(config, "slurm.time_limit_minutes=90", "cluster.workers=8"))
    assert names == {option.partition("=")[0] for option in rendered} | {"--job-name"}


WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=3)


@given(WORDS)
def test_the_words_of_the_container_reach_srun_as_they_are(container: list[str]) -> None:
    slurm = SlurmConfig(container=tuple(container), setup="marker=set\n")
    script = render_script(PLAN, slurm, Path("logs"))
    own = LINE.split(script)[3] + 'printf "%s\\0" "$marker" "${container[@]}"'
    said = subprocess.run(["bash", "-c", own], capture_output=True, check=True).stdout
    assert said.decode() == "".join(f"{word}\0" for word in ("set", *container))


def test_a_dry_run_prints_script_and_commands_and_touches_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["submit", "slurm", str(config), "--dry-run", "slurm.jobs=stages"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n")
    path = tmp_path / "runs/small/slurm/small"
    commands = [line for line in script.splitlines() if line.startswith("# sbatch --job-name=")]
    for stage, command in zip(("broad", "narrow"), commands, strict=True):
        wanted = rf"# sbatch --job-name=small-{stage} {path}.sbatch {path}-[0-9a-f]{{8}}.yaml --until {stage}"
        assert re.fullmatch(wanted, command)
    assert list(tmp_path.iterdir()) == [config]


def test_what_is_queued_stays_as_it_is_when_the_file_is_changed(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, line in (("sbatch", 'echo "$@" >> sbatch.log; echo 7'), ("squeue", ""), ("scontrol", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert main(["submit", "slurm", str(config), "stages.broad.budget.steps=9"]) == 0
    queued = Path((tmp_path / "sbatch.log").read_text().split()[-1])
    content = queued.read_text()
    job = load_job(queued)
    assert [stage.budget.steps for stage in job.sft.stages] == [9, 4]
    assert job.sft.run.dir == tmp_path / "runs/small"
    assert job.cluster == load_job(config).cluster
    config.write_text(CONFIG.replace("1.0e-5", "2.0e-5"))
    assert main(["submit", "slurm", str(config)]) == 0
    assert queued.read_text() == content
    capsys.readouterr()


@pytest.mark.parametrize(
    "secret", ["data.sources.only.path=https://me:canary@host/data.jsonl", "alerts.url=https://hooks.host/T0/canary"]
)
def test_a_secret_in_a_url_is_not_queued(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    assert main(["submit", "slurm", str(config), secret]) == 2
    message = capsys.readouterr().err
    assert "holds a password, a query or a webhook (not shown)" in message
    assert "canary" not in message
    assert list(tmp_path.iterdir()) == [config]


def test_where_there_is_no_slurm_it_is_said(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["submit", "slurm", str(config)]) == 2
    assert capsys.readouterr().err.startswith("There is no squeue here.")


def test_a_run_that_a_living_driver_holds_is_not_queued_but_behind_it(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    run = RunFolder(tmp_path / "runs/small")
    with run_lock(run.lock, on_lost=pytest.fail):
        assert main(["submit", "slurm", str(config)]) == 2
        assert re.match(r"The run in .+small is under way: process \d+ on .+--dependency\.", capsys.readouterr().err)
        assert list(run.slurm.iterdir()) == []
        # One that waits for another job may be queued: what is missing then is Slurm.
        assert main(["submit", "slurm", str(config), "slurm.options=['--dependency=singleton']"]) == 2
        assert capsys.readouterr().err.startswith("There is no sbatch here.")
        os.utime(run.lock, (1, 1))  # nobody has renewed it for long
        assert main(["submit", "slurm", str(config)]) == 2
        assert capsys.readouterr().err.startswith("There is no squeue here.")


@pytest.mark.parametrize(
    ("override", "path", "rule"),
    [
        ("run.dir=back\\slash", "run.dir", "where \\ and line ends mean something else"),
        ('slurm.options=["--comment=a\\nb"]', "slurm.options.0", "line ends"),
        ('slurm.options=["--nice=1", "spring"]', "slurm.options.1", "does not begin with -"),
        ('slurm.options=["--array=0-3"]', "slurm.options.0", "in one run folder at a time"),
        ('slurm.partition="a\\nb"', "slurm.partition", "line ends"),
    ],
)
def test_what_slurm_would_read_otherwise_is_said_before_anything_is_written(
    config: Path, tmp_path: Path, override: str, path: str, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ((), ("--dry-run",)):
        assert main(["submit", "slurm", str(config), override, *more]) == 2
        first, field, said, *_ = capsys.readouterr().err.splitlines()
        assert first == f"{config}: 1 problem"
        assert field.startswith(f"  {path}: ")
        assert rule in said
    assert list(tmp_path.iterdir()) == [config]


def test_the_name_of_a_stage_counts_where_it_is_part_of_a_jobs_name(config: Path) -> None:
    longest = [f"run.name={'n' * 100}", f"stages.0.name={'s' * 100}"]
    assert not list(find_problems(load_job(config, longest)))
    (problem,) = find_problems(load_job(config, [*longest, "slurm.jobs=stages"]))
    assert "longer than 200 bytes" in problem.rule


def test_an_array_whose_jobs_run_one_after_another_is_fine(config: Path) -> None:
    assert not list(find_problems(load_job(config, ["slurm.options=['--array=0-3%1']"])))


def test_a_limit_is_read_as_slurm_writes_it() -> None:
    given = {"05:00": None, "00:05:00": 300, "1-02:03:04": 93784, "UNLIMITED": None, "": None}
    assert {text: limit_seconds(text) for text in given} == given


@given(st.sampled_from(["set -e", "set -u", "set -x", "set -o pipefail", "set -f", "shopt -s failglob"]))
def test_options_that_setup_sets_end_with_it(option: str) -> None:
    script = render_script(PLAN, SlurmConfig(setup=f"{option}\n"), Path("logs"))
    before = LINE.split(script)[2] + 'wanted="$(set +uo pipefail; set +o; shopt -p)"\n'
    behind = LINE.split(script)[4].partition("\n\n")[0]
    compared = '\nfalse\nset +uo pipefail; [ "$(set +o; shopt -p)" = "$wanted" ]; echo $?'
    code = before + LINE.split(script)[3] + behind + compared
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
    assert "shopt -u" not in done.stderr, "with -x, what restores them is not shown"


@pytest.mark.parametrize(
    ("setup", "failing"),
    [
        ("true\nfalse\necho not reached", 1),
        ("load() { false; true; return 3; }\nload cuda", 1),
        ("source ./inner.sh", None),
        ("source ./no-such-file", 0),
        ("[ -d /no/such/folder ] && false\nfalse || true\nx=$(false) || true", None),
        ("set -e\nfalse", 1),
    ],
)
def test_a_line_of_setup_that_fails_ends_the_job_with_its_number(
    tmp_path: Path, setup: str, failing: int | None
) -> None:
    (tmp_path / "inner.sh").write_text("false\ntrue\n")
    script = render_script(PLAN, SlurmConfig(setup=setup), Path("logs"))
    first = script.splitlines().index(setup.splitlines()[0]) + 1
    path = tmp_path / "job.sh"
    path.write_text(script.partition(LINE.findall(script)[3])[0] + "echo set up\n")
    done = subprocess.run(["bash", path], capture_output=True, text=True, check=False, cwd=tmp_path)
    if failing is None:
        assert (done.returncode, done.stdout) == (0, "set up\n"), done.stderr
    else:
        assert done.returncode == 2
        assert f" setup: line {first + failing} of the script failed" in done.stdout


@pytest.mark.parametrize(
    ("assignments", "path", "rule"),
    [
        (["cluster.workers=6"], "cluster.workers: 6", "a node holds 4 workers (slurm.workers_per_node)"),
        (["cluster.workers=[6, 8]"], "cluster.workers: [6, 8]", "a node holds 4 workers"),
        (["slurm.time_limit_minutes=5"], "slurm.signal_before_end_seconds: 300", "the time limit is 300 seconds"),
        (["slurm.jobs=two"], "slurm.jobs: 'two'", "one"),
        (["slurm.time=10"], "slurm.time: 10", "not a known key"),
        (["slrum.time=10"], "slrum: {'time': 10}", "not a known key"),
        (["cluster.workers=many"], "cluster.workers: 'many'", "must be a whole number"),
    ],
)
def test_a_mistake_about_slurm_is_one_problem(
    config: Path, assignments: list[str], path: str, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(config), *assignments]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == f"{config}: 1 problem"
    assert re.fullmatch(rf"  (line \d+: )?{re.escape(path)}", lines[0])
    assert rule in lines[1]


def test_a_stage_that_is_not_there_cannot_be_the_last(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), "--until", "brod"]) == 2
    assert capsys.readouterr().err == "--until brod: the config has no such stage. It has: broad, narrow.\n"
