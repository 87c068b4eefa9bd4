"""How much a run will write to its folders, and whether there is room for it."""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich.filesize import decimal

from launcher.preflight.findings import About, Finding
from sft.config import SftConfig
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.sizing.read_shape import read_shape
from sft.sizing.storage import plan_storage


class DiskNeed(NamedTuple):
    """What a run will write to the parts of a folder, in bytes; `what` says it in words."""

    field: str
    folder: Path
    parts: tuple[Path, ...]
    num_bytes: int
    what: str


def plan_disk(config: SftConfig) -> list[DiskNeed]:
    """Checkpoints and models (see `sft.sizing.storage`). Empty if the size of the model is not known here."""
    try:
        shape, _ = read_shape(config.model.path)
    except UserError:
        return []
    storage = plan_storage(config, shape, [stage.budget.steps for stage in config.stages], None)
    run = RunFolder(config.run.dir)
    stages = [run.stage(i, stage.name) for i, stage in enumerate(config.stages)]
    what = f"{storage.num_models} models of {decimal(storage.model)}"
    models = tuple(stage.model for stage in stages)
    needs = [DiskNeed("run.dir", run.path, models, storage.num_models * storage.model, what)]
    elsewhere = config.checkpoint.dir
    if elsewhere is None or "://" not in elsewhere:
        folder = run.path if elsewhere is None else Path(elsewhere)
        needs.append(
            DiskNeed(
                "run.dir" if elsewhere is None else "checkpoint.dir",
                folder,
                tuple(stage.checkpoints if elsewhere is None else folder / stage.path.name for stage in stages),
                storage.num_checkpoints * storage.checkpoint,
                f"{storage.num_checkpoints} checkpoints of {decimal(storage.checkpoint)}",
            )
        )
    return needs


def check_disk(needs: Iterable[DiskNeed]) -> list[Finding]:
    """A finding for each file system without room for the rest of what the run will write."""
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
                f"{folders}: {decimal(free)} free, and this run already has {decimal(there)}; needed: "
                f"{decimal(wanted)} for {' and '.join(need.what for need in on_device)}. "
                "Make room, lower checkpoint.keep_last, or use another disk."
            )
            findings.append(Finding(About.DISK, text))
    return findings


def _num_bytes_below(folder: Path) -> int:
    paths = (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
