"""The filters of language and diversity: each drops what it is for, and keeps what only looks like it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.construction.filters.registry import filter_problems
from sft.errors import UserError
from tests.construction.drafts import OFF, draft, kept, passed, reason

GERMAN = "Der größte Planet unseres Sonnensystems ist der Jupiter, der mehr Masse hat als alle anderen zusammen."
ENGLISH = "The largest planet of our sun is Jupiter, which has more mass than all of the others together."
JAPANESE = "太陽系で最大の惑星は木星です。他のすべての惑星を合わせた\n質量よりも大きな質量を持っています。"
ASK = "Name the largest planet of our sun, please, and say why it is the largest of them."


@pytest.mark.parametrize(
    ("prompt", "answer", "allowed", "why"),
    [
        (ASK, ENGLISH, "en", ""),
        (ASK, GERMAN, "en", "the answer is in another language (de)"),
        (ASK, GERMAN, ["en", "de"], ""),
        (GERMAN, ENGLISH, "en", "the prompt is in another language (de)"),
        (ASK, "Jupiter", "de", "the prompt is in another language (en)"),
        ("Wie groß?", "Sehr groß.", "en", ""),
        (ASK, f"In German: “{GERMAN}” That is how I would say it in such a book.", "en", ""),
        (ASK, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18", "en", ""),
        (ASK, "```python\nfor i in range(10):\n    print(i, i * i, i * i * i)\n```", "en", ""),
        (ASK, JAPANESE, "en", "the answer is in another language (ja)"),
    ],
)  # fmt: skip
def test_language(prompt: str, answer: str, allowed: Any, why: str, tmp_path: Path) -> None:
    found = reason(draft(prompt, answer), {**OFF, "language": allowed}, tmp_path)
    assert found == (why and f"language: {why}")


def test_a_language_that_is_not_known_is_said_before_anything_is_judged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="py3langid does not know xx. It knows ace, af, "):
        reason(draft(ASK, ENGLISH), {**OFF, "language": ["en", "xx"]}, tmp_path)
    (problem,) = filter_problems({"language": "English"})
    assert problem.path == "construct.filters.language.allowed"
    (problem,) = filter_problems({"language": True})
    assert problem.path == "construct.filters.language.allowed"


def likes(num: int) -> list[str]:
    """Prompts of which two and two differ in a single word."""
    words = [f"w{i}" for i in range(400)]
    return [" ".join([*words[i // 2 * 20 : i // 2 * 20 + 20], f"last{i}"]) for i in range(num)]


def test_the_nearest_go_first_and_no_more_than_the_share(tmp_path: Path) -> None:
    drafts = [
        draft(prompt, f"answer {i}")
        for i, prompt in enumerate([*likes(6), *(f"alone{i} x{i} y{i}" for i in range(14))])
    ]
    for share, num in ((0.05, 1), (0.1, 2), (0.15, 3), (0.9, 3)):
        stay = kept(drafts, {**OFF, "diversity": share}, tmp_path)
        assert len(stay) == len(drafts) - num, "of each pair that is alike, one goes; the others are like nothing"
        gone = [d for d in drafts if d.id not in {s.id for s in stay}]
        assert all(drafts.index(d) in (1, 3, 5) for d in gone), "the earlier one stays"


@settings(max_examples=8)
@given(st.lists(st.text("ab ", min_size=1, max_size=12), max_size=12), st.floats(0.05, 0.95))
def test_made_is_kept_and_dropped_and_never_more_than_the_share(
    tmp_path_factory: Any, texts: list[str], share: float
) -> None:
    drafts = [draft(text, text) for text in texts]
    ended, one_pass = passed(drafts, {**OFF, "diversity": share}, tmp_path_factory.mktemp("diversity"))
    assert len(ended) == len(drafts) == one_pass.num_made == one_pass.num_kept + one_pass.dropped.total()
    near = sum(num for (_, why), num in one_pass.dropped.items() if "nearest" in why)
    assert near <= share * len(drafts)


def test_the_share_is_one_of_what_copies_keeps(tmp_path: Path) -> None:
    def pair(name: str, num_own: int) -> list[str]:
        common = " ".join(f"{name}{i}" for i in range(60))
        return [f"{common} {' '.join(f'{name}{side}{i}' for i in range(num_own))}" for side in "ab"]

    pairs = [pair(f"{kind}{i}x", num) for kind, num in (("n", 1), ("a", 30)) for i in range(10)]
    drafts = [draft(prompt, "the answer") for one in pairs for prompt in one]
    copies, diversity = ({"similarity_to_existing": None, "near": 0.75}, {"drop_share": 0.1, "at_least": 0.2})
    others = kept(drafts, {"form": False, "copies": copies}, tmp_path)
    assert len(others) == 30
    both = kept(drafts, {"form": False, "copies": copies, "diversity": diversity}, tmp_path)
    assert both == kept(others, {**OFF, "diversity": diversity}, tmp_path)
    assert len(both) == 27
