"""More of a task from its own examples: a few whole ones are shown, and one more is asked for (Brown et al. 2020)."""

from functools import partial
from typing import ClassVar

from pydantic import PositiveInt

from sft.construction.answer_form import read_object, schema_of
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe
from sft.construction.script import Script

_EXAMPLE: dict[str, type] = {"prompt": str, "answer": str}


class FewShot(Recipe):
    """One more example like those of a task; for tasks whose instruction is always the same."""

    kind: ClassVar[str] = "few_shot"
    prompts: ClassVar[tuple[str, ...]] = ("few_shot",)
    num_requests: ClassVar[int] = 1

    shots: PositiveInt = 5
    """How many examples are shown."""

    def chain(self, about: About) -> Chain:
        """Each script draws the examples that it shows."""
        return Independent(partial(self._script, about))

    def _script(self, about: About, number: int) -> Script:
        random = about.random(number)
        system, seeds = about.alike(random)
        shown = random.sample(seeds, min(self.shots, len(seeds)))
        examples = [{"prompt": s.prompt, "answer": s.answer} for s in shown]
        prompt = about.prompt("few_shot", system=system, examples=examples)
        found = read_object((yield about.request(prompt, schema_of(_EXAMPLE))), _EXAMPLE)
        return about.draft(found["prompt"], found["answer"], [seed.id for seed in shown], system=system)
