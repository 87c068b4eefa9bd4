"""First-fit decreasing, one pack at a time: take the longest element left, then again and again the longest that fits.

Examples of one length are interchangeable, so the elements left are a set of lengths: the bits of one integer. The
longest that fits is the highest bit at or below the space left.

    lengths 5 4 3 2 2, packs of 8:   [5 3] [4 2 2]

Invariant: the elements that have to be packed are packed as if they were alone, and the rest fills the gaps. Alone,
they need at most G packs if there are at most G of them, or if their tokens fill at most half of G packs, rounded up
to whole packs: first-fit never leaves two packs that would fit into one.
"""

from collections import defaultdict
from collections.abc import Sequence


class _Pool:
    """The elements that are left, by length."""

    def __init__(self, lengths: Sequence[int], elements: range) -> None:
        self.by_length: dict[int, list[int]] = defaultdict(list)
        for i in reversed(elements):  # `pop` then takes the first one first
            self.by_length[lengths[i]].append(i)
        self.lengths_left = sum(1 << length for length in self.by_length)

    def fill(self, pack: list[int], space: int) -> int:
        """Take what fits, the longest first; returns the space that is left."""
        left = self.lengths_left
        while fitting := left & ((2 << space) - 1):
            length = fitting.bit_length() - 1
            same = self.by_length[length]
            pack.append(same.pop())
            if not same:
                left ^= 1 << length
            space -= length
        self.lengths_left = left
        return space

    def fill_without_copies(self, pack: list[int], space: int, examples: Sequence[int]) -> int:
        """The same, but no example twice."""
        held: set[int] = set()
        open_lengths = self.lengths_left
        while fitting := open_lengths & ((2 << space) - 1):
            length = fitting.bit_length() - 1
            same = self.by_length[length]
            for place in reversed(range(len(same))):
                if examples[same[place]] not in held:
                    held.add(examples[same[place]])
                    pack.append(same.pop(place))
                    space -= length
                    if not same:
                        self.lengths_left ^= 1 << length
                        open_lengths ^= 1 << length
                    break
            else:
                open_lengths ^= 1 << length
        return space

    def left(self) -> list[int]:
        return [i for same in self.by_length.values() for i in same]


def fill_packs(
    lengths: Sequence[int], num_musts: int, pack_len_tokens: int, num_packs: int, examples: Sequence[int] | None = None
) -> tuple[list[list[int]], list[int]]:
    """Fill at most `num_packs` packs.

    Args:
        lengths: of the elements; those that have to be packed come first.
        num_musts: the number of elements that have to be packed.
        pack_len_tokens: tokens that a pack holds.
        num_packs: the most packs.
        examples: the example of each element; given where some that have to be packed are copies of one example. A
            pack then takes a second copy only where nothing else fits.

    Returns:
        The packs, none of them empty, as indices into `lengths`; and the indices of the elements left.
    """
    musts, others = _Pool(lengths, range(num_musts)), _Pool(lengths, range(num_musts, len(lengths)))
    packs: list[list[int]] = []
    while len(packs) < num_packs and (musts.lengths_left or others.lengths_left):
        pack: list[int] = []
        if examples is None:
            others.fill(pack, musts.fill(pack, pack_len_tokens))
        else:
            space = musts.fill_without_copies(pack, pack_len_tokens, examples)
            musts.fill(pack, others.fill(pack, space))
        packs.append(pack)
    return packs, musts.left() + others.left()
