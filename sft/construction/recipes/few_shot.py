"""More of a task from its own examples: a few whole ones are shown, and one more is asked for (Brown et al. 2020)."""

from typing import ClassVar

from pydantic import PositiveInt

from sft.construction.answer_form import FormError, read_object, schema_of
from sft.construction.recipes.recipe import About, Chain, Recipe
from sft.construction.script import Script
from sft.draft import Draft

_EXAMPLE: dict[str, type] = {"prompt": str, "answer": str}


class FewShot(Recipe):
    """One more example like those of a task; for tasks whose instruction is always the same."""

    kind: ClassVar[str] = "few_shot"
    prompts: ClassVar[tuple[str, ...]] = ("few_shot",)
    num_requests: ClassVar[int] = 1

    shots: PositiveInt = 5
    """How many examples are shown."""

    def chain(self, about: About) -> Chain:
        """The scripts for a task."""
        return _Chain(about, self.shots)


class _Chain:
    window = None

    def __init__(self, about: About, shots: int) -> None:
        self._about, self._shots = about, shots

    def script(self, number: int) -> Script:
        """A single request."""
        about, random = self._about, self._about.random(number)
        system, seeds = about.alike(random)
        shown = random.sample(seeds, min(self._shots, len(seeds)))
        examples = [{"prompt": s.prompt, "answer": s.answer} for s in shown]
        prompt = about.prompt("few_shot", system=system, examples=examples)
        reply = yield about.request(number, prompt, schema_of(_EXAMPLE))
        try:
            found = read_object(reply, _EXAMPLE)
        except FormError as error:
            return error.failed
        return about.draft(found["prompt"], found["answer"], [seed.id for seed in shown], system=system)

    def take(self, draft: Draft) -> str | None:
        """Keep all: copies are the filters' matter."""
        return None
