"""Whether a folder is a run's, or may become one: no foreign file is overwritten.

A run's folder has a `manifest.json` of ours, the first file that is written there after the lock. A folder without it
may become a run's if it is empty, or if none of its files has a name that we would use.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock

from sft.atomic_files import read_json
from sft.disk_words import told_of_disk
from sft.errors import UserError
from sft.run_folder import RunFolder

_MOST_SHOWN = 5


def is_claimed(run: RunFolder) -> bool:
    """Whether this is the folder of a run."""
    try:
        manifest = read_json(run.manifest)
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and isinstance(manifest.get("versions"), dict)


def check_run_folder(run: RunFolder) -> list[str]:
    """Refuse a folder that is not a run's and may not become one; writes nothing.

    Returns:
        Notes for the user, in words.

    Raises:
        UserError: it holds files that are not a run's, or a part of it cannot be written.
    """
    path = run.path
    if path.exists() and not path.is_dir():
        raise UserError(f"run.dir: {path} is a file, but a folder is needed. Give another path.")
    if not is_claimed(run) and path.is_dir():
        _refuse_foreign(run)
    _refuse_wrong_kinds(run)
    return _check_rights(run) if path.is_dir() else []


@contextmanager
def measuring_in(folder: Path) -> Iterator[None]:
    """Make a folder of measurements in a run's folder, and hold its lock.

    Raises:
        UserError: it cannot be written.
    """
    with measured_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    with lock:
        yield


def measured_to(folder: Path) -> AbstractContextManager[None]:
    """For a block that only writes to a folder of measurements; see `told_of_disk`."""
    return told_of_disk(folder, "Give run.dir a writable folder.", "run.dir")


def _refuse_foreign(run: RunFolder) -> None:
    path = run.path.resolve()
    there = sorted(entry.name for entry in path.iterdir() if not _is_lock(run, entry))
    # A user in a container may have no home: then it stays `~`.
    here, home = Path.cwd(), Path(os.path.expanduser("~"))
    if path in (home, *home.parents) or (there and path in (here, *here.parents)):
        what = (
            "the home folder"
            if path == home
            else "the working folder"
            if path == here
            else "a folder with other content"
        )
        raise UserError(f"run.dir: {path} is {what}, but a run needs its own folder. Give another, such as runs/NAME.")
    ours = {entry.name for entry in run.entries()}
    if run.is_measured_apart_alone():
        ours.remove(run.evaluations.name)
    if met := [name for name in there if name in ours]:
        more = f" and {len(met) - _MOST_SHOWN} more" if len(met) > _MOST_SHOWN else ""
        raise UserError(
            f"run.dir: {path} is not the folder of a run, and holds {', '.join(met[:_MOST_SHOWN])}{more}, which a run "
            "would overwrite. Give another folder, or move these away."
        )


def _refuse_wrong_kinds(run: RunFolder) -> None:
    """Refuse a folder in place of a file or the reverse, and links to nothing: no run makes them."""
    for path in run.entries():
        wanted = "a folder" if path in run.folders() else "a file"
        is_there, is_folder = path.exists(), path.is_dir()
        if path.is_symlink() and not is_there:
            found = "a link to nothing"
        elif is_there and is_folder != (path in run.folders()):
            found = "a folder" if is_folder else "a file"
        else:
            continue
        raise UserError(f"run.dir: {path} is {found}, but a run needs {wanted} of that name. Remove it.")


def _is_lock(run: RunFolder, entry: Path) -> bool:
    """Whether it is the lock of a job, which is written before everything else; it may be empty while a job starts."""
    if entry.name != run.lock.name or not entry.is_file():
        return False
    text = entry.read_text(encoding="utf-8", errors="replace")
    return not text or '"nonce"' in text


def _check_rights(run: RunFolder) -> list[str]:
    """Check that everything can be written; the owner of the folder does not matter."""
    stages = run.stage_folders()
    folders = [run.path, run.stages, *(s.path for s in stages)]
    folders += [run.attempts, run.evaluations, run.tensorboard, run.sinks]
    added_to = [run.ray_log, *(path for stage in stages for path in (stage.ledger, stage.metrics))]
    replaced = [path for path in run.entries() if not path.is_dir()]
    wrong = [path for path in folders if path.exists() and not os.access(path, os.W_OK | os.X_OK)]
    wrong += [path for path in added_to if path.exists() and not os.access(path, os.W_OK)]
    wrong += [path for path in replaced if path.exists() and not _may_replace(path)]
    if wrong:
        raise UserError(_why_not_written(wrong[0]))
    about = run.path.stat()
    if about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
        return [f"note: everybody on this machine may change the files in {run.path}, the models too (chmod o-w)"]
    return []


def _why_not_written(path: Path) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"run.dir: {path} cannot be written: its file system is read-only. Give run.dir a writable folder."
    if path.stat().st_uid == os.geteuid():
        return f"run.dir: {path} is yours, but its permissions do not allow writing. Change them: chmod -R u+rwX {path}"
    owner = _owner(path)
    return (
        f"run.dir: {path} belongs to {owner}, and you cannot write to it. Continue as {owner}, get write permission "
        "for the whole folder, or give run.dir a folder of your own."
    )


def _may_replace(path: Path) -> bool:
    """Whether we may replace the file: in a folder with the sticky bit, nobody replaces files of others."""
    folder = path.parent.stat()
    return not folder.st_mode & stat.S_ISVTX or os.geteuid() in (0, folder.st_uid, path.stat().st_uid)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:  # a user of another machine
        return f"user {path.stat().st_uid}"
