"""Hashes the files of published folders again, several at a time, and compares them with their manifests."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sft.atomic_files import MANIFEST, DamagedError, check_file, read_manifest
from sft.checkpoint.formats import OtherVersionError, read_checkpoint_manifest
from sft.checkpoint.storage import CheckpointStorage
from sft.verification.findings import Findings, Kind

_MAX_THREADS = 8
"""Hashing releases Python's lock; more threads would only wait for the disk."""

ReportProgress = Callable[[str, int, int], None]
"""(the work: `hashing` or `comparing`; how much is done, in bytes or packs; how much there is)"""


@dataclass(frozen=True, eq=False, slots=True)
class Artifact:
    """Something that was published, wherever it is."""

    name: str
    """Its name in messages."""
    where: str
    """Its path or URL."""
    opened: Callable[[Iterable[str]], AbstractContextManager[Path]]
    """Opens a local folder with these files of it, if they are there."""
    is_gone: Callable[[], bool]
    """Whether it was deleted since it was found, which is allowed."""
    read: Callable[[Path], Mapping[str, Any]] = read_manifest
    """Reads its manifest, and checks it against its own hash."""


@dataclass(frozen=True, slots=True)
class ArtifactsChecked:
    """What was hashed, and the places of the damaged artifacts."""

    num_files: int
    num_bytes: int
    damaged: frozenset[str]


def folder_artifact(name: str, path: Path) -> Artifact:
    """A folder that a run never deletes."""
    return Artifact(name, str(path), lambda names: nullcontext(path), lambda: False)


def checkpoint_artifact(name: str, storage: CheckpointStorage, step: int) -> Artifact:
    """A checkpoint, which a run under way may delete or quarantine."""
    return Artifact(
        name,
        storage.where(step),
        partial(storage.opened, step),
        partial(_is_gone, storage, step),
        read_checkpoint_manifest,
    )


def check_artifacts(artifacts: Sequence[Artifact], findings: Findings, report: ReportProgress) -> ArtifactsChecked:
    """Hash every file of these artifacts. One that the run deletes meanwhile is left out."""
    wrong: defaultdict[Artifact, list[str]] = defaultdict(list)
    written: dict[tuple[Artifact, str], Mapping[str, Any]] = {}
    for artifact in artifacts:
        try:
            with artifact.opened([MANIFEST]) as folder:
                files = artifact.read(folder)["files"]
            written |= {(artifact, name): entry for name, entry in files.items()}
        except DamagedError as error:
            wrong[artifact].append(f"{MANIFEST}: {error.reason}")
        except FileNotFoundError:
            wrong[artifact].append(f"{MANIFEST} is missing")
        except OtherVersionError as error:
            wrong[artifact].append(str(error))
        except OSError as error:
            wrong[artifact].append(f"it cannot be read: {error}")
    num_done, total = 0, sum(int(entry["num_bytes"]) for entry in written.values())
    report("hashing", num_done, total)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as threads:
        futures = {threads.submit(_check_file, *which, entry): which for which, entry in written.items()}
        for future in as_completed(futures):
            which = futures[future]
            wrong[which[0]] += future.result()
            num_done += int(written[which]["num_bytes"])
            report("hashing", num_done, total)
    gone = {artifact for artifact in artifacts if wrong[artifact] and artifact.is_gone()}
    damaged = [artifact for artifact in artifacts if wrong[artifact] and artifact not in gone]
    for artifact in damaged:
        for text in sorted(wrong[artifact]):
            findings.add(Kind.FILES, f"{artifact.name}, {artifact.where}: {text}")
    left = [int(entry["num_bytes"]) for (artifact, _), entry in written.items() if artifact not in gone]
    return ArtifactsChecked(len(left), sum(left), frozenset(artifact.where for artifact in damaged))


def _check_file(artifact: Artifact, name: str, written: Mapping[str, Any]) -> list[str]:
    # Do not read the manifest again for each file: it names all files, so the cost would grow quadratically.
    try:
        with artifact.opened([name]) as folder:
            problem = check_file(folder / name, name, written)
            return [problem] if problem else []
    except OSError as error:
        return [f"{name} cannot be read: {error}"]


def _is_gone(storage: CheckpointStorage, step: int) -> bool:
    try:
        return step not in storage.steps()
    except OSError:
        return False
