"""Which packs of a step go to which rank: pure arithmetic, and the only place where the world size enters.

Ranks that share micro-batches count as one here (`World.data_rank` of `World.data_size`).

A step is `packs_per_step` consecutive packs of the stage's order. Ranks take packs of like cost (`sft.dealing`); where
costs are not known, contiguous slices, as even as whole packs allow. If the world size does not divide the step, empty
packs (`EMPTY_PACK`), which have no weight, fill up the rest. So every rank runs the same number of micro-batches
(ZeRO-3's collectives must meet), and every world size trains the same packs in the same step.

    6 packs a step, 4 ranks, 1 pack a micro-batch, slices:   rank 0: 0 1 │ rank 1: 2 3 │ rank 2: 4 - │ rank 3: 5 -

A stage that was extended has several parts, one after the other. Each begins with a new step, so the last step of a
part keeps the packs that it was trained with.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sft.dealing import deal
from sft.schema import IntArray

EMPTY_PACK = -1
"""Marks a pack without supervised tokens, which keeps a rank in step with the others."""


def real_packs(micro_batches: Iterable[Iterable[int]]) -> list[int]:
    """The packs of a rank's micro-batches, without empty ones."""
    return [pack for packs in micro_batches for pack in packs if pack != EMPTY_PACK]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """How a stage's packs become steps, and a step's packs the micro-batches of each rank.

    Attributes:
        num_packs: packs of the whole stage; the last step of a part may hold fewer than the others.
        packs_per_step: packs that one optimizer update sees over all ranks.
        world_size: number of data-parallel ranks.
        packs_per_micro_batch: packs that one forward and backward pass holds on a rank.
        earlier_ends: the number of packs up to the end of each part except the last.
        costs: (start, stop) → those of these packs, (stop - start,); without it, ranks take slices.
    """

    num_packs: int
    packs_per_step: int
    world_size: int
    packs_per_micro_batch: int
    earlier_ends: tuple[int, ...] = ()
    costs: Callable[[int, int], IntArray] | None = field(default=None, compare=False, repr=False)

    @property
    def part_steps(self) -> list[int]:
        """Optimizer updates of each part."""
        return [-(-len(part) // self.packs_per_step) for part in self._parts()]

    @property
    def num_steps(self) -> int:
        """Optimizer updates of the stage."""
        return sum(self.part_steps)

    @property
    def micro_batches_per_step(self) -> int:
        """Forward and backward passes of each rank in each step (gradient accumulation)."""
        packs_per_rank = -(-self.packs_per_step // self.world_size)
        return -(-packs_per_rank // self.packs_per_micro_batch)

    def step_packs(self, step: int) -> range:
        """The packs of `step` over all ranks, independent of the world size."""
        first = 0
        for part, num_steps in zip(self._parts(), self.part_steps, strict=True):
            if step < first + num_steps:
                start = part.start + (step - first) * self.packs_per_step
                return range(start, min(start + self.packs_per_step, part.stop))
            first += num_steps
        return range(self.num_packs, self.num_packs)

    def step_of(self, pack: int) -> int:
        """The step of a pack of the stage."""
        first = 0
        for part, num_steps in zip(self._parts(), self.part_steps, strict=True):
            if pack < part.stop:
                return first + (pack - part.start) // self.packs_per_step
            first += num_steps
        raise IndexError(f"pack {pack} of {self.num_packs}")

    def _parts(self) -> list[range]:
        """The packs of each part."""
        ends = (*self.earlier_ends, self.num_packs)
        return [range(start, stop) for start, stop in zip((0, *ends), ends, strict=False)]

    def dealt(self, step: int) -> list[list[list[int]]]:
        """The packs that each rank feeds in `step`, as (world_size, micro_batches_per_step, packs_per_micro_batch) ids.

        Slots without a pack hold `EMPTY_PACK`; they come last in their micro-batch. A short last step of the stage has
        more of them.
        """
        first = self.step_packs(step).start
        return [self._filled_up(micro_batches, first) for micro_batches in self._ranks(step)]

    def rank_packs(self, step: int, rank: int) -> list[list[int]]:
        """The packs that `rank` feeds in `step` (see `dealt`); only empty ones for a rank that is left over."""
        own = self._ranks(step)[rank] if rank < self.world_size else []
        return self._filled_up(own, self.step_packs(step).start)

    def _ranks(self, step: int) -> list[list[list[int]]]:
        """The places in `step` of the packs of each rank's micro-batches, without empty packs."""
        packs = self.step_packs(step)
        # One rank waits for nobody.
        if self.costs is None or self.world_size == 1:
            return self._slices(len(packs))
        return deal(self.costs(packs.start, packs.stop), self.world_size, self.packs_per_micro_batch)

    def _slices(self, num_packs: int) -> list[list[list[int]]]:
        """Slices as even as whole packs allow, so that no rank idles while another has two packs more."""
        share, extra = divmod(num_packs, self.world_size)
        starts = [rank * share + min(rank, extra) for rank in range(self.world_size + 1)]
        each = self.packs_per_micro_batch
        return [
            [list(range(i, min(i + each, stop))) for i in range(start, stop, each)]
            for start, stop in zip(starts, starts[1:], strict=False)
        ]

    def _filled_up(self, micro_batches: list[list[int]], first: int) -> list[list[int]]:
        """The packs at these places behind `first`, with empty packs up to the shape that every rank has."""
        each = self.packs_per_micro_batch
        whole = [[first + i for i in places] + [EMPTY_PACK] * (each - len(places)) for places in micro_batches]
        missing = self.micro_batches_per_step - len(whole)
        return whole + [[EMPTY_PACK] * each for _ in range(missing)]
