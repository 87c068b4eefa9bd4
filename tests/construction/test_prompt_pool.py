"""The pool finds what a comparison with each text finds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.construction.prompt_pool import PromptPool
from sft.scoring.rouge import rouge_l

WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=9)


@given(st.lists(WORDS, max_size=12), WORDS, st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_it_finds_the_first_text_that_reaches_the_limit(texts: list[list[str]], new: list[str], limit: float) -> None:
    pool = PromptPool(limit)
    for text in texts:
        pool.add(text)
    like = [i for i, text in enumerate(texts) if text and new and rouge(new, text) >= limit - 1e-9]
    assert pool.find(new) == (like[0] if like else None)


def rouge(one: list[str], other: list[str]) -> float:
    """By the table of the textbook."""
    row = [0] * (len(other) + 1)
    for a in one:
        before = 0
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], before + 1 if a == b else max(row[j], row[j - 1])
    return 2 * row[-1] / (len(one) + len(other))


def test_it_is_rouge_l_of_the_package() -> None:
    draw = random.Random(3)
    for _ in range(200):
        one, other = ([f"{draw.randrange(12)}x" for _ in range(draw.randrange(1, 20))] for _ in range(2))
        assert rouge(one, other) == pytest.approx(rouge_l(" ".join(one), " ".join(other)))
