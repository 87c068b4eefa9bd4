"""Which packs of a step go to which rank: pure arithmetic, and the only place where the world size enters.

A step is `packs_per_step` consecutive packs of the stage's order. Ranks take contiguous slices of it, as even as whole
packs allow. If the world size does not divide the step, the shorter slices are filled up with empty packs
(`EMPTY_PACK`), which have no weight. So every rank runs the same number of micro-batches (ZeRO-3's collectives must
meet), and every world size trains the same packs in the same step.

    6 packs a step, 4 ranks, 1 pack a micro-batch:   rank 0: 0 1 │ rank 1: 2 3 │ rank 2: 4 - │ rank 3: 5 -

A stage that was extended has several parts, one after the other. Each begins with a new step, so the last step of a
part keeps the packs that it was trained with.
"""

from dataclasses import dataclass

EMPTY_PACK = -1
"""Marks a pack without supervised tokens, which keeps a rank in step with the others."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """How a stage's packs become steps, and a step's packs the micro-batches of each rank.

    Attributes:
        num_packs: packs of the whole stage; the last step of a part may hold fewer than the others.
        packs_per_step: packs that one optimizer update sees over all ranks.
        world_size: number of data-parallel ranks.
        packs_per_micro_batch: packs that one forward and backward pass holds on a rank.
        earlier_ends: the number of packs up to the end of each part except the last.
    """

    num_packs: int
    packs_per_step: int
    world_size: int
    packs_per_micro_batch: int
    earlier_ends: tuple[int, ...] = ()

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

    def rank_packs(self, step: int, rank: int) -> list[list[int]]:
        """The packs that `rank` feeds in `step`, as (micro_batches_per_step, packs_per_micro_batch) pack ids.

        Slots without a pack hold `EMPTY_PACK`; they come last. A short last step of the stage has more of them.
        """
        packs = self.step_packs(step)
        # The slice is as even as whole packs allow, so that no rank idles while another has two packs more.
        share, extra = divmod(len(packs), self.world_size)
        start = rank * share + min(rank, extra)
        mine = list(packs[start : start + share + (rank < extra)])
        num_slots = self.micro_batches_per_step * self.packs_per_micro_batch
        mine += [EMPTY_PACK] * (num_slots - len(mine))
        return [mine[i : i + self.packs_per_micro_batch] for i in range(0, num_slots, self.packs_per_micro_batch)]
