"""Versions of the format, and what became of it: a manifest says in which one its checkpoint is written, and by whom.

    1   no hash of the manifest itself; sizes and spans in the metadata of each file, by key: [elements, first here]
    2   both in the manifest (see `rank_file`); `num_updates`, `manifest_sha256`; since sft 0.1 also `written_by`, and
        `optimizer`, without which it was AdamW

The one before the newest is read, too. What is newer, or older than that, is refused in words, and is not damage. So
that any version can say so, all of them keep `kind`, `format` and `written_by`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sft.atomic_files import MANIFEST, DamagedError, is_signed, read_json, read_manifest

FORMAT_VERSION = 2
"""What is written."""

_OLDEST = 1


class OtherVersionError(Exception):
    """The checkpoint is in a format that this version does not read. The text goes on from the checkpoint's name."""


def read_checkpoint_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, in the terms of the newest format; of format 1 without `sizes` and `spans`.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not as it was written.
        OtherVersionError: see there.
    """
    try:
        manifest = read_manifest(folder)
    except DamagedError:
        unsigned = _unsigned(folder)
        if unsigned is None:
            raise
        manifest = unsigned
    version = _version(manifest)
    if version is not None and not _OLDEST <= version <= FORMAT_VERSION:
        age = "a newer" if version > FORMAT_VERSION else "an older"
        by = manifest.get("written_by", f"{age} version of this program")
        raise OtherVersionError(
            f"was written by {by}, in format {version} of checkpoints; this version reads formats {_OLDEST} to "
            f"{FORMAT_VERSION}. It is not damaged, and nothing was changed. Go on with the version that wrote it, or "
            "give run.dir a new folder."
        )
    if version == 1:
        if missing := {"files", "step"} - manifest.keys():
            raise DamagedError(folder / MANIFEST, f"it has no {' and no '.join(sorted(missing))}")
        # Every step made an update then.
        manifest = {"num_updates": manifest["step"], **manifest}
    return {"optimizer": "adamw", **manifest}


def with_spans(manifest: dict[str, Any], folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """The manifest with `sizes` and `spans`; of format 1 those of the named files.

    Raises:
        DamagedError: a file does not tell them.
    """
    if "spans" in manifest:
        return manifest
    sizes: dict[str, int] = {}
    spans: dict[str, dict[str, list[int]]] = {}
    for name in names:
        spans[name] = {}
        try:
            with safe_open(folder / name, framework="pt") as file:
                parts = json.loads(file.metadata()["spans"])
                for key, (numel, start) in parts.items():
                    sizes[key] = numel
                    span = [start, start + file.get_slice(key).get_shape()[0]]
                    assert spans[name].setdefault(str(numel), span) == span, f"{key} is split unlike others of its size"
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(folder / name, f"its metadata cannot be read: {error}") from error
    return {**manifest, "sizes": sizes, "spans": spans}


def _unsigned(folder: Path) -> dict[str, Any] | None:
    """The manifest of a version that did not sign it, or signs it in another way.

    What was signed is damaged where it does not fit: one bit makes another version out of this one.
    """
    try:
        manifest = read_json(folder / MANIFEST)
    except ValueError:
        return None
    return manifest if _version(manifest) not in (None, FORMAT_VERSION) and not is_signed(manifest) else None


def _version(manifest: Any) -> int | None:
    """The version that a manifest of a checkpoint names, if it is one."""
    if not isinstance(manifest, Mapping) or manifest.get("kind") != "checkpoint":
        return None
    version = manifest.get("format")
    return version if isinstance(version, int) else None
