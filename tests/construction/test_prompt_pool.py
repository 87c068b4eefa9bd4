"""The pool finds what a comparison with each text finds."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.construction import prompt_pool
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


@given(st.lists(WORDS, max_size=30), WORDS, st.sampled_from([0.3, 0.7]), st.integers(1, 5), st.integers(1, 40))
def test_of_many_it_compares_those_that_share_most_of_the_rarest_words(
    texts: list[list[str]], new: list[str], limit: float, most_compared: int, most_places: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_pool, "MOST_COMPARED", most_compared)
        patch.setattr(prompt_pool, "MOST_PLACES", most_places)
        pool = PromptPool(limit)
        for text in texts:
            pool.add(text)
        for among in (len(texts), len(texts) // 2):
            compared = those_compared(texts[:among], new, limit, most_compared, most_places) if new else []
            like = [i for i in compared if rouge(new, texts[i]) >= limit - 1e-9]
            assert pool.find(new, among) == (like[0] if like else None)


def those_compared(
    texts: list[list[str]], new: list[str], limit: float, most_compared: int, most_places: int
) -> list[int]:
    """Word by word, as the module says it."""
    counted = [{(word, text[:i].count(word)) for i, word in enumerate(text)} for text in texts]
    words = [(word, new[:i].count(word)) for i, word in enumerate(new)]
    places = sorted(([i for i, text in enumerate(counted) if word in text] for word in words), key=len)
    places = places[: len(new) - math.ceil(limit * len(new) / (2 - limit) - 1e-9) + 1]
    looked_at = [one for i, one in enumerate(places) if not i or sum(map(len, places[: i + 1])) <= most_places]
    shared = Counter(i for one in looked_at for i in one)

    def may_be_like(i: int) -> bool:
        needed = limit * (len(new) + len(texts[i])) / 2 - 1e-9
        left = len(new) - len(looked_at)
        return min(len(new), len(texts[i])) >= needed and shared[i] + left >= needed

    able = sorted(filter(may_be_like, shared), key=lambda i: (-shared[i], i))
    return sorted(able[:most_compared])
