"""Gives a rank the micro-batches of any step. The loader is stateless: the step is all of the data loader's state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sft.data.collate import Batch, Layout, collate, collate_rows, empty_batch
from sft.data.planning.pack_plan import PackPlan
from sft.data.sequence_parts import part_of
from sft.data.token_store import TokenStore
from sft.row_plan import row_cost
from sft.schema import IntArray, Pack
from sft.seeds import derive_seed
from sft.step_plan import EMPTY_PACK, StepPlan, real_packs


@dataclass(frozen=True, slots=True)
class StepLoader:
    """One rank's part of each step of a plan. It reads only the packs of its own rank.

    `rank` and the ranks of `steps` are data ranks (see `World`).

    The layout changes neither the plan nor what a rank feeds in a step, only how the model's rows are laid out.
    """

    store: TokenStore
    plan: PackPlan
    steps: StepPlan
    rank: int
    read_staged: Callable[[int], Pack | None] | None = None
    """Returns a pack from this node's own disk, or None where it is not staged there."""
    layout: Layout = "packed"
    dropout_seed: int | None = None
    """If given, each batch holds one pack or a part of it, and has a seed of its own."""
    part: int = 0
    """Which part of each row this rank runs, of `num_parts`; the others are run by the ranks that share its packs."""
    num_parts: int = 1

    def num_supervised_tokens(self, step: int) -> int:
        """Tokens in the loss of the whole step, over all ranks: known before it runs."""
        return self.plan.num_supervised_tokens(self.steps.step_packs(step))

    def own_packs(self, step: int) -> list[int]:
        """The packs that this rank feeds in `step`, in the order of the plan."""
        return sorted(real_packs(self.steps.rank_packs(step, self.rank)))

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of `step`: as many as every other rank has."""
        if self.layout == "packed":
            whole = [self._collate(packs) for packs in self.steps.rank_packs(step, self.rank)]
            batches = [part_of(batch, self.part, self.num_parts) for batch in whole]
        else:
            assert self.num_parts == 1, "only packed rows are shared"
            batches = self._in_rows(step)
        return batches if self.dropout_seed is None else self._seeded(batches, step)

    def _in_rows(self, step: int) -> list[Batch]:
        dealt = [self._groups(micro_batches) for micro_batches in self.steps.dealt(step)]
        groups = [[self._read(pack) for pack in packs] for packs in dealt[self.rank]]
        batches = [batch for packs in groups for batch in collate_rows(packs, self._max_slots)]
        ranks = [list(map(self._lengths_of, groups)) for groups in dealt]
        # The ranks of ZeRO-3 run the model together: a rank with fewer batches than another runs empty ones.
        missing = row_cost(ranks, self._max_slots).num_batches - len(batches)
        return batches + [empty_batch(self.layout)] * missing

    @property
    def _max_slots(self) -> int:
        return self.steps.packs_per_micro_batch * int(self.plan.manifest["inputs"]["pack_len_tokens"])

    def _groups(self, micro_batches: Sequence[Sequence[int]]) -> list[list[int]]:
        """The packs whose examples share batches: all of a rank's, or each by itself."""
        packs = real_packs(micro_batches)
        return [packs] if self.dropout_seed is None else [[pack] for pack in packs]

    def _lengths_of(self, packs: Sequence[int]) -> IntArray:
        ids = [self.plan.pack_examples(pack) for pack in packs]
        return self.store.lengths[np.concatenate(ids)] if ids else np.zeros(0, dtype=np.int64)

    def _seeded(self, batches: Sequence[Batch], step: int) -> list[Batch]:
        seeded, pack, part = [], EMPTY_PACK, 0
        for batch in batches:
            pack, part = (batch.fed[0][0], 0) if batch.fed else (pack, part + 1)
            assert self.dropout_seed is not None
            seeded.append(replace(batch, seed=derive_seed(self.dropout_seed, step, pack, part)))
        return seeded

    def _collate(self, packs: list[int]) -> Batch:
        return collate([None if pack == EMPTY_PACK else self._read(pack) for pack in packs])

    def _read(self, pack: int) -> Pack:
        staged = self.read_staged(pack) if self.read_staged is not None else None
        return staged or self.plan.read_pack(pack, self.store)
