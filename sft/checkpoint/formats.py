"""Versions of the checkpoint format: a manifest says in which one its checkpoint is written, and by which program.

    1   no hash of the manifest itself; sizes and spans in the metadata of each file, by key: [elements, first here]
    2   both in the manifest (see `rank_file`); `num_updates`, `manifest_sha256`; since sft 0.1 also `written_by`, and
        `optimizer`, without which it was AdamW

The version before the newest is still read. Newer and older ones are refused in words, and do not count as damaged. For
this, every version keeps `kind`, `format` and `written_by`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sft.atomic_files import MANIFEST, DamagedError, is_signed, read_json, read_manifest

FORMAT_VERSION = 2
"""The version that is written."""

_OLDEST = 1


class OtherVersionError(Exception):
    """The checkpoint is in a format that this version does not read. The text continues a sentence that begins with the
    checkpoint's name."""


def read_checkpoint_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, in the terms of the newest format; a manifest of format 1 has no `sizes` and
    `spans`.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not as it was written.
        OtherVersionError: it is in a format that is not read here.
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
            f"{FORMAT_VERSION}. It is not damaged, and nothing was changed. Use the version that wrote it, or "
            "give run.dir a new folder."
        )
    if version == 1:
        if missing := {"files", "step"} - manifest.keys():
            raise DamagedError(folder / MANIFEST, f"it has no {' and no '.join(sorted(missing))}")
        # In format 1, every step made an update.
        manifest = {"num_updates": manifest["step"], **manifest}
    return {"optimizer": "adamw", **manifest}


def with_spans(manifest: dict[str, Any], folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """The manifest with `sizes` and `spans`; in format 1, those of the named files.

    Raises:
        DamagedError: a file's metadata does not hold them.
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
    """The manifest of a version that does not sign it, or signs it in another way.

    A signed manifest with a wrong hash is damaged: one flipped bit can change the version that it names.
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
