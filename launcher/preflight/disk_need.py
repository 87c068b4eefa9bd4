"""How much a run will write to its folders, and whether there is room for it."""

import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich.filesize import decimal
from safetensors import SafetensorError, safe_open

from launcher.preflight.findings import About, Finding
from sft.config import SftConfig
from sft.run_folder import RunFolder

_CHECKPOINT_BYTES_PER_PARAMETER = 12
"""float32 master copy and AdamW's two moments (measured: docs/BENCHMARKS.md)."""

_MODEL_BYTES_PER_PARAMETER = {"bfloat16": 2, "float32": 4}


class DiskNeed(NamedTuple):
    """What a run will have in the parts of a folder, in bytes; `what` in words."""

    field: str
    folder: Path
    parts: tuple[Path, ...]
    num_bytes: int
    what: str


def plan_disk(config: SftConfig) -> list[DiskNeed]:
    """Checkpoints that are there at one time, and models. Nothing for a model on the Hub, whose size is not known."""
    num_parameters = count_parameters(Path(config.model.path))
    if num_parameters is None:
        return []
    checkpoint, run = config.checkpoint, RunFolder(config.run.dir)
    stages = [run.stage(i, stage.name) for i, stage in enumerate(config.stages)]
    per_model = num_parameters * _MODEL_BYTES_PER_PARAMETER[config.model.dtype]
    models = tuple(stage.model for stage in stages)
    what = f"{len(models)} models of {decimal(per_model)}"
    needs = [DiskNeed("run.dir", run.path, models, len(models) * per_model, what)]
    if checkpoint.dir is None or "://" not in checkpoint.dir:
        # One more than is kept is written before the oldest is deleted.
        num_checkpoints = checkpoint.keep_last + 1 + (len(stages) - 1 if checkpoint.keep_stage_ends else 0)
        per_checkpoint = num_parameters * _CHECKPOINT_BYTES_PER_PARAMETER
        folder = None if checkpoint.dir is None else Path(checkpoint.dir)
        needs.append(
            DiskNeed(
                "run.dir" if folder is None else "checkpoint.dir",
                folder or run.path,
                tuple(folder / stage.path.name if folder else stage.checkpoints for stage in stages),
                num_checkpoints * per_checkpoint,
                f"{num_checkpoints} checkpoints of {decimal(per_checkpoint)}",
            )
        )
    return needs


def count_parameters(folder: Path) -> int | None:
    """Elements of all tensors in the safetensors files of a folder, by their headers; None where that is not known."""
    files = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    try:
        return sum(map(_count, files)) if files else None
    except (OSError, SafetensorError):  # whoever loads the model says what is wrong with it
        return None


def check_disk(needs: Iterable[DiskNeed]) -> list[Finding]:
    """A finding for each file system without room for what will be there, beside what the run has already written."""
    by_device: defaultdict[int, list[DiskNeed]] = defaultdict(list)
    for need in needs:
        by_device[need.folder.stat().st_dev].append(need)
    findings = []
    for on_device in by_device.values():
        free = shutil.disk_usage(on_device[0].folder).free
        wanted = sum(need.num_bytes for need in on_device)
        there = sum(_num_bytes_below(part) for need in on_device for part in need.parts)
        if free + there < wanted:
            folders = " and ".join(dict.fromkeys(f"{need.field} ({need.folder})" for need in on_device))
            text = (
                f"{folders}: {decimal(free)} free, and {decimal(there)} of this run are there; needed: "
                f"{decimal(wanted)} for {' and '.join(need.what for need in on_device)}. "
                "Make room, lower checkpoint.keep_last, or take another disk."
            )
            findings.append(Finding(About.DISK, text))
    return findings


def _count(file: Path) -> int:
    with safe_open(file, framework="np") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def _num_bytes_below(folder: Path) -> int:
    paths = (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
