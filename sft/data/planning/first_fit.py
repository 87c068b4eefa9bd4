"""First-fit decreasing, one pack at a time: the longest that is left, then again and again the longest that still fits.

Examples of one length are interchangeable, so what is left is a set of lengths: the bits of one integer, of which the
longest that fits is the highest bit below the space that is left.

    lengths 5 4 3 2 2, packs of 8:   [5 3] [4 2 2]

Invariant: what has to be packed is packed as if it were alone, and the rest fills the gaps. Alone, it needs no more
than G packs where it has at most G elements, or at most half of G packs' tokens, rounded up to whole packs: two packs
that first-fit leaves never fit into one.
"""

from collections import defaultdict
from collections.abc import Sequence


class _Pool:
    """The elements that are left, by length."""

    def __init__(self, lengths: Sequence[int], elements: range) -> None:
        self.by_length: dict[int, list[int]] = defaultdict(list)
        for i in reversed(elements):  # the first is then the first to be taken
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
    """Fill at most so many packs.

    Args:
        lengths: of the elements; those that have to be packed come first.
        num_musts: how many of them have to be packed.
        pack_len_tokens: tokens that a pack holds.
        num_packs: packs there are.
        examples: of the elements, where some that have to be packed are copies of one example. A pack then takes a
            copy of what it holds only where nothing else that is left fits.

    Returns:
        The packs, as indices of `lengths`, none of them empty, and the indices of what is left.
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
