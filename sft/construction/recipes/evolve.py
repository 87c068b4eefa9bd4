"""Evol-Instruct (Xu et al. 2023, arXiv 2304.12244): a seed's instruction becomes a harder one, or one that is rarer.

    deeper    constraints · deepen · concretise · reasoning, one of the four drawn each time
    broader   another instruction of the same domain, of a rarer kind
    rounds    each evolves what the one before has made; then the last is answered

An evolution that failed ends the try, as in section 3.2 of the paper: it says the same, it has words of the prompt that
asked for it, or its answer is empty or a refusal.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sft.construction.answer_form import read_object, read_text, schema_of
from sft.construction.filters.refusals import refuses
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe, Seed
from sft.construction.script import Failed, Script
from sft.scoring.words import words_of

_INSTRUCTION: dict[str, type] = {"instruction": str}
_DEEPER = ("evolve_constraints", "evolve_deepen", "evolve_concretise", "evolve_reasoning")
_BROADER = "evolve_broader"
_OF_PROMPT = re.compile(r"\b(?:given|evolved|rewritten|original)[ _](?:instruction|prompt)s?\b", re.IGNORECASE)
SAME = "evolving changed nothing"
COPIED = "its instruction has words of the prompt"
REFUSED = "its answer is a refusal"
WORDLESS = "its answer has no words"


class Evolve(Recipe):
    """Harder and rarer instructions from those of a task."""

    kind: ClassVar[str] = "evolve"
    prompts: ClassVar[tuple[str, ...]] = (*_DEEPER, _BROADER, "evolve_answer")

    rounds: Annotated[int, Field(ge=1, le=8)] = 1
    """How often each is evolved."""
    direction: Literal["both", "deeper", "broader"] = "both"
    """`both`: one of the five ways is drawn each time."""

    @property
    def num_requests(self) -> int:
        """One for each round, and the answer."""
        return self.rounds + 1

    def chain(self, about: About) -> Chain:
        """Seeds in turn."""
        return Independent(partial(self._script, about, about.shuffled(about.seeds)))

    def _script(self, about: About, seeds: Sequence[Seed], number: int) -> Script:
        seed, random = seeds[number % len(seeds)], about.random(number)
        ways = {"both": (*_DEEPER, _BROADER), "deeper": _DEEPER, "broader": (_BROADER,)}[self.direction]
        instruction, system, used = seed.prompt, seed.system, list[str]()
        for _ in range(self.rounds):
            way = random.choice(ways)
            prompt = about.prompt(way, system=system, instruction=instruction)
            reply = yield about.request(prompt, schema_of(_INSTRUCTION))
            evolved = read_object(reply, _INSTRUCTION)["instruction"]
            if _same(evolved, instruction) or _same(evolved, seed.prompt):
                return Failed(SAME)
            if _OF_PROMPT.search(evolved) and not _OF_PROMPT.search(seed.prompt):
                return Failed(COPIED)
            instruction = evolved
            used.append(way.removeprefix("evolve_"))
        prompt = about.prompt("evolve_answer", instruction=instruction)
        reply = yield about.request(prompt, system=system)
        answer = read_text(reply)
        if not words_of(answer) and words_of(seed.answer):
            return Failed(WORDLESS)
        if refuses(answer, instruction):
            return Failed(REFUSED)
        return about.draft(instruction, answer, [seed.id], system=system, evolved_by=used)


def _same(one: str, other: str) -> bool:
    words = words_of(one)
    return words == words_of(other) if words else one.split() == other.split()
