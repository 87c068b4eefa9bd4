"""Gives a rank the micro-batches of any step. It has no state: the state of the data loader is the step."""

from collections.abc import Callable
from dataclasses import dataclass

from sft.data.collate import Batch, collate
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.schema import Pack
from sft.step_plan import EMPTY_PACK, StepPlan


@dataclass(frozen=True, slots=True)
class StepLoader:
    """The part of one rank in each step of a plan. It reads the packs of its own rank and no others."""

    store: TokenStore
    plan: PackPlan
    steps: StepPlan
    rank: int
    read_staged: Callable[[int], Pack | None] | None = None
    """Gives a pack that lies nearer than the store, on this node's disk, or None where it does not."""

    def num_supervised_tokens(self, step: int) -> int:
        """Tokens in the loss of the whole step, over all ranks: known before it runs."""
        return self.plan.num_supervised_tokens(self.steps.step_packs(step))

    def own_packs(self, step: int) -> list[int]:
        """The packs that this rank feeds in `step`."""
        return [pack for packs in self.steps.rank_packs(step, self.rank) for pack in packs if pack != EMPTY_PACK]

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of `step`."""
        return [self._collate(packs) for packs in self.steps.rank_packs(step, self.rank)]

    def _collate(self, packs: list[int]) -> Batch:
        return collate([None if pack == EMPTY_PACK else self._read(pack) for pack in packs])

    def _read(self, pack: int) -> Pack:
        staged = self.read_staged(pack) if self.read_staged is not None else None
        return staged or self.plan.read_pack(pack, self.store)
