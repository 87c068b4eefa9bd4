"""Magpie (Xu et al. 2024, arXiv 2406.08464): a tuned model writes the user's turn itself, and then answers it.

    1  given: its own template up to where a user's words begin    written: an instruction, up to the end of the turn
    2  asked: that instruction                                     written: the answer

Only a model that is loaded here goes on from the middle of its template. A system text with instructions of the task
keeps it to the task, as the paper does for mathematics and code.
"""

from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt

from sft.construction.answer_form import read_text
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe
from sft.construction.script import Script


class Magpie(Recipe):
    """Instructions that a local model draws as a user, and its answers."""

    kind: ClassVar[str] = "magpie"
    prompts: ClassVar[tuple[str, ...]] = ("magpie_system",)
    num_requests: ClassVar[int] = 2
    needs_local: ClassVar[bool] = True
    takes_system: ClassVar[bool] = False  # its own keeps the model to the task

    shots: NonNegativeInt = 4
    """How many instructions of the task stand in the system text; 0: there is none, as in the paper's general set."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Of the instruction: 0 would write the same one each time."""
    answer_temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Of the answer."""

    def chain(self, about: About) -> Chain:
        """Each script draws the instructions that it shows."""
        return Independent(partial(self._script, about))

    def _script(self, about: About, number: int) -> Script:
        shown = about.random(number).sample([*about.seeds], min(self.shots, len(about.seeds)))
        # A turn without content is the one to write (`sft.chat.batched`).
        messages: list[dict[str, Any]] = [{"role": "user"}]
        if shown:
            system = about.prompt("magpie_system", instructions=[seed.prompt for seed in shown])
            messages.insert(0, {"role": "system", "content": system})
        instruction = read_text((yield about.request(messages)))
        answer = read_text((yield about.request(instruction, temperature=self.answer_temperature)))
        return about.draft(instruction, answer, [seed.id for seed in shown])
