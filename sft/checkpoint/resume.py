"""Finds the checkpoint to resume from: the newest that is as it was written, the same on all ranks.

    newest that any rank sees ──▶ each rank checks what it will read ──▶ all agree ──▶ good: opened
                                                                        ├▶ damaged: told; the next older one
                                                                        └▶ of another version: all raise

Invariant: training never starts over silently. If there are checkpoints, or remains of them, and none is good, all
ranks raise. Damaged ones are quarantined for people to look at, once a good one is found. A checkpoint that another
version of this program wrote is not damaged, and stays where it is.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import torch

from sft.atomic_files import MANIFEST, DamagedError, check_listed
from sft.checkpoint.formats import OtherVersionError, read_checkpoint_manifest, with_spans
from sft.checkpoint.rank_file import CheckpointReader, files_to_read
from sft.checkpoint.storage import CheckpointStorage
from sft.checkpoint.tries import try_again
from sft.errors import UserError
from sft.ranks.agreement import all_texts, any_rank
from sft.ranks.ranks import Ranks
from sft.ranks.shared_work import work_together
from sft.world import World

_POLL_SECONDS = 0.2


def open_newest_good(
    storage: CheckpointStorage,
    ranks: Ranks,
    report: Callable[[str], None],
    parts: Mapping[str, range] | None = None,
    patience_seconds: float = 30.0,
    only: int | None = None,
) -> CheckpointReader | None:
    """Open the newest checkpoint that is good on all ranks; a collective.

    Args:
        storage: where the checkpoints are.
        ranks: all of them resume from it.
        report: takes a line for the log for each damaged checkpoint; needed on one rank only.
        parts: the elements that this rank will read of each state tensor, if known. Only files with any of them are
            checked. If not known, all files are checked, unless the same number of ranks wrote the checkpoint.
        patience_seconds: how long a rank waits for a checkpoint that another rank sees already.
        only: the step of the only acceptable checkpoint.

    Returns:
        A reader, to be closed, with `step`, `manifest` and `read`. None if no checkpoint was ever saved.

    Raises:
        UserError: on all ranks: there are checkpoints, but none is good; or the newest that is not damaged has a format
            that is not read here.
    """
    damage: dict[int, str] = {}
    seen = try_again(storage.steps, "listing the checkpoints", report) if only is None else [only]
    while (step := _newest(seen, damage, ranks)) >= 0:
        _wait_until_seen(storage, step, ranks, patience_seconds)
        found = work_together(ranks, partial(_open, storage, step, ranks.world, parts, report), storage.progress)
        if others := all_texts(ranks, str(found) if isinstance(found, OtherVersionError) else None):
            raise UserError("\n".join(f"{storage.where(step)} {text}" for text in others), is_everywhere=True)
        problems = all_texts(ranks, found if isinstance(found, str) else None)
        if isinstance(found, CheckpointReader):
            if not problems:
                if damage:
                    mine = damage if ranks.world.is_first else {}
                    work_together(ranks, partial(_quarantine, storage, mine, report), storage.progress)
                return found
            found.close()
        damage[step] = "; ".join(problems)
        report(f"the checkpoint {storage.where(step)} is damaged: {damage[step]}")
    quarantined = all_texts(ranks, "\n".join(storage.damaged()) if ranks.world.is_first else None)
    if damage or quarantined:
        raise UserError(_none_is_good(storage, damage, quarantined), is_everywhere=True)
    return None


def _newest(seen: list[int], damage: Mapping[int, str], ranks: Ranks) -> int:
    """The newest step that any rank sees below those that are damaged; -1 if there is none."""
    limit = min(damage, default=None)
    mine = max((step for step in seen if limit is None or step < limit), default=-1)
    return int(ranks.max(torch.tensor([mine])).item())


def _wait_until_seen(storage: CheckpointStorage, step: int, ranks: Ranks, patience_seconds: float) -> None:
    """If any rank sees the checkpoint, give this one time to see it: shared file systems lag."""
    is_here = storage.is_published(step)
    is_anywhere = any_rank(ranks, is_here)
    deadline = time.monotonic() + patience_seconds
    while is_anywhere and not is_here and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        is_here = storage.is_published(step)


def _open(
    storage: CheckpointStorage,
    step: int,
    world: World,
    parts: Mapping[str, range] | None,
    report: Callable[[str], None],
) -> CheckpointReader | OtherVersionError | str:
    """A reader of a checkpoint whose files are as they were written; or what is wrong with it."""
    what = f"reading {storage.where(step)}"
    with ExitStack() as held:
        folder = try_again(lambda: held.enter_context(storage.opened(step)), what, report)
        try:
            manifest = read_checkpoint_manifest(folder)
        except DamagedError as error:
            return f"{MANIFEST}: {error.reason}"
        except FileNotFoundError:
            return f"{MANIFEST} is missing"
        except OtherVersionError as error:
            return error
        if problem := _wrong_kind(manifest, step):
            return problem
        names = files_to_read(manifest, world.rank, world.size, parts)
        try_again(lambda: storage.fetch(step, names, folder), what, report)
        if problems := check_listed(folder, manifest["files"], names, storage.progress.tell):
            return "; ".join(problems)
        manifest = with_spans(manifest, folder, names)
        return CheckpointReader(folder, held.pop_all(), manifest)


def _wrong_kind(manifest: Mapping[str, object], step: int) -> str:
    expected = {"kind": "checkpoint", "step": step}
    wrong = [
        f"{key} is {manifest.get(key)!r}, not {value!r}"
        for key, value in expected.items()
        if manifest.get(key) != value
    ]
    return f"{MANIFEST}: {', '.join(wrong)}" if wrong else ""


def _quarantine(storage: CheckpointStorage, damage: Mapping[int, str], report: Callable[[str], None]) -> None:
    for step in damage:
        try:
            report(f"the damaged checkpoint {storage.where(step)} is kept as {storage.quarantine(step)}")
        except FileNotFoundError:
            # Only a rank with an outdated view of the folder has seen it.
            continue


def _none_is_good(storage: CheckpointStorage, damage: Mapping[int, str], quarantined: list[str]) -> str:
    lines = [f"  {storage.where(step)}: {what}" for step, what in damage.items()]
    kept = [path for text in quarantined for path in text.splitlines()]
    lines += [f"  {path}: was damaged, and is kept for inspection" for path in kept]
    return (
        "This stage has checkpoints, but none is as it was written:\n"
        + "\n".join(lines)
        + "\nRestore one of them from a backup, or delete all of them to train the stage from its beginning."
    )
