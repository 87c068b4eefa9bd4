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

from sft.atomic_files import MANIFEST, DamagedError, check_listed, read_manifest
from sft.checkpoint.formats import OtherVersionError, read_checkpoint_manifest
from sft.checkpoint.places import Place
from sft.verification.findings import Findings, Kind

_MAX_THREADS = 8
"""Hashing leaves Python's lock; more at a time would wait for the disk."""

ReportProgress = Callable[[str, int, int], None]
"""(what is done: `hashing` or `comparing`; how much of it, in bytes or packs; how much there is)"""


@dataclass(frozen=True, eq=False, slots=True)
class Artifact:
    """Something that was published, wherever it lies."""

    name: str
    """What to call it."""
    where: str
    """Its path or URL."""
    opened: Callable[[], AbstractContextManager[Path]]
    """A local folder with its manifest."""
    bring: Callable[[Iterable[str], Path], None]
    """Has files of it in the opened folder."""
    is_gone: Callable[[], bool]
    """Whether it was deleted, as it may be, since it was found."""
    read: Callable[[Path], Mapping[str, Any]] = read_manifest
    """Its manifest, held to its own hash."""


@dataclass(frozen=True, slots=True)
class ArtifactsChecked:
    """What was hashed, and where what is not as its manifest says."""

    num_files: int
    num_bytes: int
    damaged: frozenset[str]


def folder_artifact(name: str, path: Path) -> Artifact:
    """A folder that is never deleted by itself."""
    return Artifact(name, str(path), lambda: nullcontext(path), lambda names, folder: None, lambda: False)


def checkpoint_artifact(name: str, place: Place, step: int) -> Artifact:
    """A checkpoint, which a run under way may delete or set aside."""
    return Artifact(
        name,
        place.where(step),
        partial(place.opened, step),
        partial(place.bring, step),
        partial(_is_gone, place, step),
        read_checkpoint_manifest,
    )


def check_artifacts(artifacts: Sequence[Artifact], findings: Findings, report: ReportProgress) -> ArtifactsChecked:
    """Hash every file of these. One that is deleted meanwhile, as it may be, is left out."""
    wrong: defaultdict[Artifact, list[str]] = defaultdict(list)
    files: dict[Artifact, Mapping[str, Any]] = {}
    for artifact in artifacts:
        try:
            with artifact.opened() as folder:
                files[artifact] = artifact.read(folder)["files"]
        except DamagedError as error:
            wrong[artifact].append(f"{MANIFEST}: {error.reason}")
        except FileNotFoundError:
            wrong[artifact].append(f"{MANIFEST} is missing")
        except OtherVersionError as error:
            wrong[artifact].append(str(error))
        except OSError as error:
            wrong[artifact].append(f"it cannot be read: {error}")
    sizes = {(a, name): int(entry["num_bytes"]) for a, entries in files.items() for name, entry in entries.items()}
    num_done, total = 0, sum(sizes.values())
    report("hashing", num_done, total)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as threads:
        futures = {threads.submit(_check_file, a, files[a], name): (a, name) for a, name in sizes}
        for future in as_completed(futures):
            wrong[futures[future][0]] += future.result()
            num_done += sizes[futures[future]]
            report("hashing", num_done, total)
    gone = {artifact for artifact in artifacts if wrong[artifact] and artifact.is_gone()}
    damaged = [artifact for artifact in artifacts if wrong[artifact] and artifact not in gone]
    for artifact in damaged:
        for text in sorted(wrong[artifact]):
            findings.add(Kind.FILES, f"{artifact.name}, {artifact.where}: {text}")
    left = [size for (artifact, _), size in sizes.items() if artifact not in gone]
    return ArtifactsChecked(len(left), sum(left), frozenset(artifact.where for artifact in damaged))


def _check_file(artifact: Artifact, files: Mapping[str, Any], name: str) -> list[str]:
    try:
        with artifact.opened() as folder:
            artifact.bring([name], folder)
            return check_listed(folder, files, [name])
    except OSError as error:
        return [f"{name} cannot be read: {error}"]


def _is_gone(place: Place, step: int) -> bool:
    try:
        return step not in place.steps()
    except OSError:
        return False
