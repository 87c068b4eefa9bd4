"""Lays examples end to end in packs of a fixed length, step by step; works on lengths and returns indices.

A step of G packs takes the next stretch of the order, with a little more than it can hold, and fills its packs
(`first_fit`). What is left over comes first in the very next step. So an example is trained in the step where its
position in the order falls, or in the next one. The packs of a step are shuffled, because the fullest come out first.

    stretch of step 1   stretch of step 2                         left over by step 1: c, by step 2: f
    a b c d             e f g               step 1: a b d    step 2: c e g    step 3: f …

Invariants: the packs partition the order; no pack is longer than its length; every step but the last has G packs.
Where the order repeats an example only after all others of its task, a step holds an example twice only if it also
holds all others of its task. One rule ensures this: a task that has an example which comes again before the next
stretch can end leaves nothing over. So a step that sees both copies sees everything between them.
"""

from array import array
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sft.data.planning.first_fit import fill_packs
from sft.schema import BoolArray, IntArray
from sft.seeds import derive_seed

_SURPLUS_PACKS = 2
_SURPLUS_SHARE = 0.05
"""How much longer a stretch is than its step: the larger of this many packs and this share of the step, but never more
than may be left over. More does not make packs fuller; less makes them emptier where steps are small."""

_NEVER = np.iinfo(np.int64).max


class FilledStep(NamedTuple):
    """The packs of a step and what it leaves over, as positions in the order; `stop` is where its stretch ends."""

    packs: list[list[int]]
    left_over: IntArray
    stop: int


def pack_order(
    lengths: IntArray, examples: IntArray, tasks: IntArray, pack_len_tokens: int, packs_per_step: int, seed: int
) -> tuple[IntArray, IntArray]:
    """Pack the order whose i-th element is `examples[i]`, of `tasks[i]`, with `lengths[i]` tokens.

    Returns:
        The positions in the order, pack after pack, (num_elements,), and where each pack starts among them,
        (num_packs + 1,).
    """
    assert lengths.max(initial=0) <= pack_len_tokens, "an example is longer than a pack"
    ends = np.cumsum(lengths, dtype=np.int64)
    order = _Order(lengths, ends, examples, tasks, next_draws(examples), pack_len_tokens, packs_per_step)
    positions = np.empty(len(lengths), np.int64)
    # Numbers, not objects: an order may have tens of millions of elements.
    sizes = array("q", [0])
    carried: IntArray = np.empty(0, np.int64)
    num_packed, step, start = 0, 0, 0
    while num_packed < len(lengths):
        packs, carried, start = order.fill_step(carried, start)
        if len(packs) > 1:
            shuffled = np.random.default_rng(derive_seed(seed, "step", step)).permutation(len(packs))
            packs = [packs[i] for i in shuffled.tolist()]
        sizes.extend(map(len, packs))
        elements = [element for pack in packs for element in pack]
        positions[num_packed : num_packed + len(elements)] = elements
        num_packed, step = num_packed + len(elements), step + 1
    return positions, np.cumsum(np.frombuffer(sizes, np.int64))


def next_draws(examples: IntArray) -> IntArray:
    """For each element of the order, the position where its example comes again; `_NEVER` if it does not."""
    by_example = np.argsort(examples, kind="stable")
    again = examples[by_example[1:]] == examples[by_example[:-1]]
    following = np.full(len(examples), _NEVER)
    following[by_example[:-1][again]] = by_example[1:][again]
    return following


@dataclass(frozen=True, slots=True)
class _Order:
    """The order, and the shape of the steps to fill from it."""

    lengths: IntArray
    ends: IntArray  # tokens up to and including each element
    examples: IntArray
    tasks: IntArray
    next_draws: IntArray
    pack_len_tokens: int
    packs_per_step: int

    @property
    def step_slots(self) -> int:
        return self.packs_per_step * self.pack_len_tokens

    @property
    def most_left_over(self) -> int:
        """Tokens that the next step can pack, whatever their lengths (see `sft.data.planning.first_fit`)."""
        return -(-self.packs_per_step // 2) * self.pack_len_tokens

    @property
    def most_candidates(self) -> int:
        """Tokens that a step chooses from."""
        surplus = max(_SURPLUS_PACKS * self.pack_len_tokens, int(_SURPLUS_SHARE * self.step_slots))
        return self.step_slots + min(surplus, self.most_left_over)

    def fill_step(self, carried: IntArray, start: int) -> FilledStep:
        """Pack everything that is carried, and as much of the stretch from `start` as fits with it.

        The stretch shrinks until every element that has to be packed is packed, and no more is left over than the next
        step can pack. This ends, because as many elements as there are packs can always be packed.
        """
        least = min(start + max(0, self.packs_per_step - len(carried)), len(self.lengths))
        stop = self._reach(start, self.most_candidates - int(self.lengths[carried].sum()))
        while True:
            must, has_copies = self._musts(start, stop)
            new = np.arange(start, stop)
            elements = np.concatenate([carried, new[must], new[~must]])
            num_musts = len(carried) + int(np.count_nonzero(must))
            packed, left = fill_packs(
                self.lengths[elements].tolist(),
                num_musts,
                self.pack_len_tokens,
                self.packs_per_step,
                self.examples[elements].tolist() if has_copies else None,
            )
            listed = elements.tolist()
            packs = [[listed[i] for i in pack] for pack in packed]
            # Elements behind the last one packed are not left over: the next stretch begins with them.
            end = max(start, 1 + max(max(pack) for pack in packs))
            remaining = np.sort(elements[left])
            left_over = remaining[remaining < end]
            unpacked = elements[[i for i in left if i < num_musts]]
            excess = int(self.lengths[unpacked].sum()) or int(self.lengths[left_over].sum()) - self.most_left_over
            if excess <= 0:
                break
            assert stop > least, "what was left over has room in the next step"
            stop = max(least, min(stop - 1, int(np.searchsorted(self.ends, self.ends[stop - 1] - excess, "right"))))
        if end < len(self.lengths):
            _split(packs, self.packs_per_step)
        return FilledStep(packs, left_over, end)

    def _reach(self, start: int, num_tokens: int) -> int:
        """Where a stretch from `start` of at most `num_tokens` tokens ends."""
        before = self.ends[start - 1] if start else 0
        return int(np.searchsorted(self.ends, before + num_tokens, side="right"))

    def _musts(self, start: int, stop: int) -> tuple[BoolArray, bool]:
        """Which elements of the stretch are of a task that leaves nothing over; whether an example is in it twice."""
        following = self.next_draws[start:stop]
        soon = following < self._reach(stop, self.most_candidates)
        if not soon.any():
            return soon, False
        tasks = self.tasks[start:stop]
        return np.isin(tasks, tasks[soon]), bool((following < stop).any())


def _split(packs: list[list[int]], num_packs: int) -> None:
    """Halve packs until there are `num_packs`: steps are counted by their packs, so only the last may have fewer."""
    while len(packs) < num_packs:
        largest = max(packs, key=len)
        half = len(largest) // 2
        packs.append(largest[half:])
        del largest[half:]
