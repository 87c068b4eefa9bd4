"""The control tokens that end learned answers are found, in blocks as in one piece, and no other token is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data import learned_stops
from sft.data.learned_stops import learned_stop_ids


class Store:
    """The arrays of a store that are looked at."""

    def __init__(self, examples: list[list[tuple[int, bool]]]) -> None:
        tokens = [pair for example in examples for pair in example]
        self.tokens = np.array([token for token, _ in tokens], dtype=np.uint16)
        self.loss_mask = np.array([learned for _, learned in tokens], dtype=bool)
        self.offsets = np.cumsum([0, *map(len, examples)])
        self.token_keys = np.zeros(10, dtype=np.uint64)


def slowly(examples: list[list[tuple[int, bool]]], control_ids: list[int]) -> tuple[int, ...]:
    counts: dict[int, int] = {}
    for example in examples:
        for (token, learned), (_, next_learned) in zip(example, [*example[1:], (0, False)], strict=True):
            if learned and not next_learned:
                counts[token] = counts.get(token, 0) + 1
    return tuple(sorted((i for i in control_ids if i in counts), key=lambda i: (-counts[i], i)))


EXAMPLES = st.lists(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=8), max_size=8)


@given(examples=EXAMPLES, block_tokens=st.integers(1, 20))
def test_they_are_those_of_a_slow_search_most_frequent_first(
    examples: list[list[tuple[int, bool]]], block_tokens: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned_stops, "_BLOCK_TOKENS", block_tokens)
        assert learned_stop_ids(Store(examples), [1, 3, 5, 40]) == slowly(examples, [1, 3, 5, 40])
