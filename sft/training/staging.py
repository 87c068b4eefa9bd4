"""`data.staging: node_local` in a stage: a rank reads its packs from its node's disk if they are there already.

The node's first rank fetches them during the training, which never waits for it: a pack that is missing or damaged is
read from the shared storage. So a disk that is full, damaged or lost costs only time.
"""

import threading
from collections.abc import Callable

import torch

from sft.atomic_files import DamagedError
from sft.data.planning.pack_plan import PackPlan
from sft.data.staged_packs import StagedPacks, remove_staged, staging_root
from sft.data.staging import StagingOrder, StagingReport
from sft.data.token_store import TokenStore
from sft.engine.engine import Engine
from sft.run_events import EventLog
from sft.schema import Pack

Fetch = Callable[[StagingOrder, Callable[[], bool]], StagingReport | None]
"""Carries an order out on this node while the function says that it is wanted; None if it is no longer wanted."""

_PATIENCE_SECONDS = 10.0


class Staging:
    """The packs on this node's disk, as one rank sees them in one stage."""

    def __init__(self, order: StagingOrder, store: TokenStore, plan: PackPlan, events: EventLog) -> None:
        """Open what the node has; if its disk fails, all packs are read from the shared storage."""
        self._order = order
        self._events = events
        self.num_staged = self.num_direct = 0
        self._was_told = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._packs: StagedPacks | None = None
        try:
            self._packs = StagedPacks(staging_root(order.staging_dir), plan, store)
        except OSError as error:
            self._tell(f"packs are not staged on node {order.node}: {error}")

    def read(self, pack_id: int) -> Pack | None:
        """The pack from this node's disk; None if it has to be read from the shared storage."""
        pack = None
        try:
            pack = self._packs.read(pack_id) if self._packs is not None else None
        except (DamagedError, OSError) as error:
            if not self._was_told:
                self._was_told = True
                # Damage here loses nothing: the original of the pack is intact.
                what = f"{error.path}: {error.reason}" if isinstance(error, DamagedError) else str(error)
                self._tell(f"node {self._order.node}: {what}; such packs are read from the shared storage")
        self.num_staged += pack is not None
        self.num_direct += pack is None
        return pack

    def start(self, fetch: Fetch) -> None:
        """Start to fetch the packs of the node's ranks; called by one rank of the node."""
        if self._packs is not None:
            self._thread = threading.Thread(target=self._fetch, args=(fetch,), name="staging", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop fetching."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_SECONDS)

    def finish(self, engine: Engine) -> None:
        """After the last step, on all ranks together: report where the packs came from, and clean the disk."""
        # Ranks that share packs have all read them, from the same nodes or from others.
        counts = torch.tensor([self.num_staged, self.num_direct]) * engine.ranks.world.speaks_for_group
        num_staged, num_direct = engine.ranks.sum(counts).tolist()
        if engine.ranks.world.is_first:
            text = f"{num_staged:,} packs were read from the nodes' own disks, {num_direct:,} from the shared storage"
            self._events.add("staging", text, num_staged=num_staged, num_direct=num_direct)
        if engine.ranks.world.local_rank == 0 and self._packs is not None:
            remove_staged(self._packs.folder)

    def _fetch(self, fetch: Fetch) -> None:
        try:
            report = fetch(self._order, lambda: not self._ended.is_set())
        except Exception as error:  # it must not end the training, which does not need it
            self._tell(f"packs are not staged on node {self._order.node}, {type(error).__name__}: {error}")
            return
        if report is not None and report.why_stopped is not None:
            self._tell(
                f"node {report.node} has staged the packs of {report.num_steps:,} steps, then: {report.why_stopped}; "
                "the others are read from the shared storage"
            )

    def _tell(self, text: str) -> None:
        self._events.add("staging", text)
