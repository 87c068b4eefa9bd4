"""Nobody's files are overwritten: which folder may become a run's, and what is said of one that may not."""

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sft.atomic_files import write_json
from sft.errors import UserError
from sft.evaluation.report import write_report
from sft.run_claim import check_run_folder, is_claimed
from sft.run_folder import RunFolder
from sft.run_lock import read_holder, run_lock
from sft.training.run_record import claim_run_folder

THEIRS = {
    "config.yaml": "run: {name: mine}\n",
    "manifest.json": '{"name": "my page"}',
    "STOP": "",
    "report.html": "<p>",
    "ray.log": "of another Ray",
}


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "exp1")


def nothing(run: RunFolder) -> None:
    pass


def empty(run: RunFolder) -> None:
    run.path.mkdir()


def of_others(run: RunFolder) -> None:
    (run.path / "data").mkdir(parents=True)
    (run.path / "job.yaml").write_text("x")


def being_locked(run: RunFolder) -> None:
    run.path.mkdir()
    run.lock.write_text('{"node": "a", "nonce": "b"}')


def of_a_run(run: RunFolder) -> None:
    claim_run_folder(run)
    for name in ("config.yaml", "report.html"):
        (run.path / name).write_text("ours")
    (run.path / "my notes.txt").write_text("theirs")


@pytest.mark.parametrize("before", [nothing, empty, of_others, being_locked, of_a_run])
def test_a_folder_that_is_a_runs_or_in_which_nothing_meets_is_taken(
    run: RunFolder, before: Callable[[RunFolder], None]
) -> None:
    before(run)
    there = content_of(run.path)
    assert check_run_folder(run) == []
    assert content_of(run.path) == there, "to look changes nothing"
    claim_run_folder(run)
    assert is_claimed(run)
    assert content_of(run.path).items() >= {k: v for k, v in there.items() if k != "manifest.json"}.items()


@pytest.mark.parametrize("name", [*THEIRS, "driver.lock", "stages/0-broad/notes", "slurm/job.sbatch", "attempts/a"])
def test_a_folder_that_holds_what_would_be_overwritten_is_refused(run: RunFolder, name: str) -> None:
    path = run.path / name
    path.parent.mkdir(parents=True)
    path.write_text(THEIRS.get(name, "mine"))
    there = content_of(run.path)
    for look in (check_run_folder, claim_run_folder):
        with pytest.raises(UserError, match=f"is not the folder of a run, and holds {name.split('/')[0]}, which"):
            look(run)
    assert content_of(run.path) == there


def test_a_run_may_begin_where_models_were_measured_before_it(run: RunFolder) -> None:
    for folder in (run.asked("0a1b"), run.losses("0a1b"), run.harness):
        folder.mkdir(parents=True)
    assert check_run_folder(run) == []
    run.evaluation().write_text("{}")
    with pytest.raises(UserError, match="holds evaluations, which a run would overwrite"):
        check_run_folder(run)


def test_what_meets_is_named_but_not_all_of_it(run: RunFolder) -> None:
    run.path.mkdir()
    for path in run.entries():
        path.mkdir()
    with pytest.raises(UserError, match=r"holds \.planning\.lock, STOP, answers\.html, .* and \d+ more, which"):
        check_run_folder(run)


def test_root_home_and_the_working_folder_are_no_run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, work = tmp_path / "home", tmp_path / "home" / "project"
    work.mkdir(parents=True)
    (work / "job.yaml").write_text("x")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    for folder in ("/", home, tmp_path, ".", work, "../project"):
        with pytest.raises(UserError, match="but a run needs its own folder"):
            check_run_folder(RunFolder(Path(folder)))
    check_run_folder(RunFolder(work / "runs"))
    # Whoever stands in a run's own folder goes on there; an empty one is one for itself.
    write_json(work / "manifest.json", {"versions": {"python": "3.11"}})
    check_run_folder(RunFolder(Path()))
    (home / "empty").mkdir()
    monkeypatch.chdir(home / "empty")
    check_run_folder(RunFolder(Path()))


def test_who_has_no_home_needs_none(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.path.mkdir()
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # whom no list of users knows
    assert check_run_folder(run) == []


def test_a_file_is_no_folder(run: RunFolder) -> None:
    run.path.write_text("mine")
    with pytest.raises(UserError, match="is a file, but a folder is needed"):
        check_run_folder(run)


def test_a_lock_that_is_a_folder_is_said(run: RunFolder) -> None:
    claim_run_folder(run)
    run.lock.mkdir()
    for look in (lambda: run_lock(run.lock, pytest.fail).__enter__(), lambda: read_holder(run.lock)):
        with pytest.raises(
            UserError, match=r"driver\.lock is a folder, but it must be the lock file of a job.*remove it"
        ):
            look()


@pytest.mark.parametrize("name", ["STOP", "ray.log", "config.yaml", "stages", "evaluations"])
@pytest.mark.parametrize("kind", ["other", "link to nothing"])
def test_what_no_run_can_use_is_named_before_it_is_met(run: RunFolder, name: str, kind: str) -> None:
    claim_run_folder(run)
    path = run.path / name
    if kind == "link to nothing":
        path.symlink_to("nowhere")
    elif path in run.folders():
        path.write_text("mine")
    else:
        path.mkdir()
    with pytest.raises(UserError, match=rf"run\.dir: {path} is a (file|folder|link to nothing), but a run needs a"):
        check_run_folder(run)
    path.rmdir() if path.is_dir() else path.unlink()
    (run.path.parent / "elsewhere").mkdir()
    run.tensorboard.symlink_to(run.path.parent / "elsewhere")
    assert check_run_folder(run) == []


def as_nobody(function: Callable[[], object]) -> str:
    """What it says to a user without rights, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            said = f"fine: {function()}"
        except UserError as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_whose_a_folder_is_does_not_count_if_all_of_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path("exp1"))  # nobody may go through pytest's own folders
    claim_run_folder(run)
    stage = run.stage(0, "broad")
    stage.path.mkdir(parents=True)
    stage.ledger.write_text("")
    said = as_nobody(lambda: check_run_folder(run))
    assert (
        f"run.dir: {run.path} belongs to root, and you cannot write to it. Continue as root, get write permission"
        in said
    )
    for path in (run.path, run.stages, stage.path):
        path.chmod(0o777)
    assert f"{stage.ledger} belongs to root, and you cannot write to it" in as_nobody(lambda: check_run_folder(run))
    stage.ledger.chmod(0o666)
    said = as_nobody(lambda: check_run_folder(run))
    assert said.startswith(f"fine: ['note: everybody on this machine may change the files in {run.path}")
    run.path.chmod(0o777 | stat.S_ISVTX)
    assert f"{run.manifest} belongs to root, and you cannot write to it" in as_nobody(lambda: check_run_folder(run))
    for path in (run.path, run.manifest):
        os.chown(path, 65534, 65534)
    assert as_nobody(lambda: check_run_folder(run)) == "fine: []"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user, and mount")
def test_why_a_folder_cannot_be_written_is_what_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path("exp1"))
    claim_run_folder(run)
    for path in (run.path, run.manifest):
        os.chown(path, 65534, 65534)
    run.path.chmod(0o555)
    assert f"{run.path} is yours, but its permissions do not allow writing" in as_nobody(lambda: check_run_folder(run))
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        here = RunFolder(disk / "exp2")
        claim_run_folder(here)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(UserError, match="cannot be written: its file system is read-only"):
            check_run_folder(here)
        with pytest.raises(UserError, match=r"report\.html cannot be written: Read-only file system"):
            write_report(here)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_the_manifest_is_the_first_file_and_says_what_computes(run: RunFolder) -> None:
    claim_run_folder(run)
    assert [path.name for path in run.path.iterdir()] == ["manifest.json"]
    assert json.loads(run.manifest.read_text())["versions"].keys() > {"python", "torch", "deepspeed"}
