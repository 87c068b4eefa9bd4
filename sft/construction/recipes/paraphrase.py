"""Another wording of a seed's prompt, with the seed's answer: for tasks whose instruction is always the same.

The answer stays right only if what it depends on survives: numbers, quotations, code, addresses and placeholders have
to be there as often as before; and where the task has a wording, the words that are not of it, in their order.
"""

import re
from collections import Counter
from collections.abc import Sequence, Set
from functools import partial
from typing import ClassVar

from sft.construction.answer_form import read_object, schema_of
from sft.construction.filters.compared_words import wordings_of
from sft.construction.prompt_pool import common_length
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe, Seed
from sft.construction.script import Failed, Script
from sft.scoring.words import words_of

_PROMPT: dict[str, type] = {"prompt": str}
_FEWEST_OF_WORDING = 2
_KEPT = re.compile(
    r"""```.*?```|`[^`\n]+`                                     # code
      | https?://\S+ | [\w.+-]+@[\w-]+\.\w[\w.-]*               # addresses
      | "[^"\n]+" | “[^”\n]+” | „[^“”\n]+[“”] | «[^»\n]+» | 「[^」\n]+」   # quotations
      | \{\{?[^{}\n]*\}?\} | <[^<>\s][^<>\n]*> | \[[A-Z_ ]+\] | %\w | \$\w+   # placeholders
      | \d+(?:[.,:/]\d+)*                                       # numbers
    """,
    re.VERBOSE | re.DOTALL,
)
SAME = "its wording is the same"
LOST = "numbers, quotations, code or placeholders of the prompt are lost or added"
LOST_WORDS = "words of the input are lost"


class Paraphrase(Recipe):
    """Other wordings of the prompts of seeds; their answers stay."""

    kind: ClassVar[str] = "paraphrase"
    prompts: ClassVar[tuple[str, ...]] = ("paraphrase",)
    num_requests: ClassVar[int] = 1

    def chain(self, about: About) -> Chain:
        """Seeds in turn."""
        wording = wordings_of([(about.task, seed) for seed in about.seeds]).get(about.task, frozenset())
        return Independent(partial(self._script, about, about.shuffled(about.seeds), wording))

    def _script(self, about: About, seeds: Sequence[Seed], wording: Set[str], number: int) -> Script:
        seed = seeds[number % len(seeds)]
        prompt = about.prompt("paraphrase", system=seed.system, prompt=seed.prompt)
        found = read_object((yield about.request(prompt, schema_of(_PROMPT))), _PROMPT)["prompt"]
        if words_of(found) == words_of(seed.prompt):
            return Failed(SAME)
        if Counter(_KEPT.findall(found)) != Counter(_KEPT.findall(seed.prompt)):
            return Failed(LOST)
        if len(wording) >= _FEWEST_OF_WORDING:
            own = [word for word in words_of(seed.prompt) if word not in wording]
            if common_length(own, words_of(found)) < len(own):
                return Failed(LOST_WORDS)
        return about.draft(found, seed.answer, [seed.id], system=seed.system, wording_of=seed.id, answer_of=seed.id)
