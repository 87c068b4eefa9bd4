"""A draft, or a seed, as a page shows it and compares it: texts without their middle where they are long."""

import json
from typing import NamedTuple

from sft.construction.filters.compared_words import ComparedWords
from sft.construction.filters.draft_parts import answer_of, has_calls, prompt_of
from sft.construction.prompt_pool import MOST_WORDS
from sft.construction.recipes.recipe import Seed
from sft.draft import Draft
from sft.scoring.words import words_of

MOST_CHARS = 2000
"""Of a text on a page."""


class ShownDraft(NamedTuple):
    """The first question and the last answer, of bounded size."""

    recipe: str
    """Empty: it is a seed."""
    task: str
    prompt: str
    answer: str
    num_prompt_words: int
    num_answer_words: int
    prompt_words: list[str]
    """The first ones of the prompt."""
    compared: list[str]
    """The first ones of what is compared with seeds."""

    @classmethod
    def of(cls, draft: Draft, words: ComparedWords) -> "ShownDraft":
        """A draft."""
        answer = json.dumps(draft.messages[-1]["tool_calls"], ensure_ascii=False) if has_calls(draft) else ""
        recipe, answer = draft.provenance.recipe, answer or answer_of(draft)
        return _shown(recipe, draft.task, prompt_of(draft), answer, words.of(draft))

    @classmethod
    def of_seed(cls, task: str, seed: Seed, words: ComparedWords) -> "ShownDraft":
        """A seed."""
        return _shown("", task, seed.prompt, seed.answer, words.of_prompt(seed.prompt, task))


def _shown(recipe: str, task: str, prompt: str, answer: str, compared: list[str]) -> ShownDraft:
    in_prompt = words_of(prompt)
    shown = _cut(prompt), _cut(answer), len(in_prompt), len(words_of(answer))
    return ShownDraft(recipe, task, *shown, in_prompt[:MOST_WORDS], compared[:MOST_WORDS])


def _cut(text: str) -> str:
    half = MOST_CHARS // 2
    if len(text) <= MOST_CHARS:
        return text
    return f"{text[:half]} ⋯ {len(text) - 2 * half:,} characters are not shown ⋯ {text[-half:]}"
