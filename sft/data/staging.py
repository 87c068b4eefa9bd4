"""Fetches the packs of a node's ranks from the shared storage to the node's disk, in the order of the steps.

A pack that is there and passes its hash is not fetched again, whoever staged it and for however many ranks. So after a
change of size only the missing packs move.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sft.atomic_files import DamagedError, write_json
from sft.data.planning.pack_plan import PackPlan
from sft.data.staged_packs import StagedPacks, remove_unused, staging_root
from sft.data.token_store import TokenStore
from sft.schema import Pack
from sft.step_plan import real_packs

_READERS = 8
"""Packs that are read at the same time: reading from a network file system is mostly waiting."""

_REPORT_EVERY_SECONDS = 10.0

LEAST_FREE_SHARE = 0.06
"""Staging stops when less of the disk is free. At 0.05 Ray considers the node's disk full, and spills no more."""


@dataclass(frozen=True, slots=True)
class StagingOrder:
    """What a node should have on its disk; sent to the task that fetches it."""

    node: str
    ranks: range
    """The data ranks (`World.data_rank`) that have a rank on the node."""
    world_size: int
    """Number of data ranks."""
    packs_per_micro_batch: int
    first_step: int
    store: Path
    plan: Path
    staging_dir: str | None
    """On the node (see `sft.data.staged_packs.staging_root`)."""
    report: Path
    """Where the `StagingReport` is written, in the run folder."""


@dataclass(slots=True)
class StagingReport:
    """What was fetched to the disk of a node, and what was there. Bytes are sizes on that disk."""

    node: str
    first_rank: int
    num_ranks: int
    first_step: int
    num_steps: int = 0
    """Steps whose packs are there, counted from the first."""
    num_fetched: int = 0
    bytes_fetched: int = 0
    num_there: int = 0
    bytes_there: int = 0
    seconds: float = 0.0
    is_complete: bool = False
    why_stopped: str | None = None
    """The reason, such as an error of the node's disk."""


def fetch_packs(
    order: StagingOrder,
    is_wanted: Callable[[], bool] = lambda: True,
    least_free_share: float = LEAST_FREE_SHARE,
) -> StagingReport:
    """Stage all packs of the order; reports in the run folder at the end, and every few seconds before.

    Args:
        order: whose packs, from which step on.
        is_wanted: asked before each step whether to continue.
        least_free_share: of the disk; staging stops below it.

    Raises:
        UserError: the token store is damaged.
    """
    started = told = time.monotonic()
    report = StagingReport(order.node, order.ranks.start, len(order.ranks), order.first_step)
    try:
        root = staging_root(order.staging_dir)
        remove_unused(root)
        copier = _Copier(order, root)
        with ThreadPoolExecutor(_READERS) as pool:
            for step in range(order.first_step, copier.num_steps):
                if not is_wanted():
                    break
                if copier.staged.free_share() < least_free_share:
                    report.why_stopped = f"less than {least_free_share:.0%} of the disk is free"
                    break
                for num_bytes, is_new in pool.map(copier.stage, copier.step_packs(step)):
                    report.num_fetched += is_new
                    report.bytes_fetched += num_bytes * is_new
                    report.num_there += not is_new
                    report.bytes_there += num_bytes * (not is_new)
                report.num_steps += 1
                if time.monotonic() - told > _REPORT_EVERY_SECONDS:
                    told = time.monotonic()
                    _write(report, order.report, told - started)
        report.is_complete = order.first_step + report.num_steps == copier.num_steps
    except OSError as error:
        report.why_stopped = f"{error.strerror or error}"
    _write(report, order.report, time.monotonic() - started)
    return report


class _Copier:
    def __init__(self, order: StagingOrder, root: Path) -> None:
        self._store, self._plan = TokenStore.open(order.store), PackPlan.open(order.plan)
        self._steps, self._ranks = self._plan.steps(order.world_size, order.packs_per_micro_batch), order.ranks
        self.num_steps = self._steps.num_steps
        self.staged = StagedPacks(root, self._plan, self._store)

    def step_packs(self, step: int) -> list[int]:
        """The packs that the node's ranks feed in `step`."""
        dealt = self._steps.dealt(step)
        return [pack for rank in self._ranks for pack in real_packs(dealt[rank])]

    def stage(self, pack_id: int) -> tuple[int, bool]:
        """Bytes of the pack on the disk, and whether it had to be fetched."""
        there: Pack | None = None
        with suppress(DamagedError):
            there = self.staged.read(pack_id)
        pack = there or self._plan.read_pack(pack_id, self._store)
        if there is None:
            self.staged.write(pack)
        return self.staged.num_bytes(pack), there is None


def _write(report: StagingReport, path: Path, seconds: float) -> None:
    report.seconds = round(seconds, 3)
    with suppress(OSError):  # a failed report must not stop the staging
        write_json(path, asdict(report))
