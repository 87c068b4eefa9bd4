"""A conversation of several turns: the teacher plays the user, who sees what was said, and the assistant.

    1  shown: first turns of seeds          asked: one that opens a new conversation
    2  the conversation until now           asked: the answer
    3  shown: the conversation              asked: what the user says next; and on with 2

The simulated user is that of UltraChat (Ding et al. 2023, arXiv 2305.14233).
"""

from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from sft.construction.answer_form import read_object, read_text, schema_of
from sft.construction.filters.refusals import refuses
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe
from sft.construction.script import Failed, Script

_MESSAGE: dict[str, type] = {"message": str}
_NUM_SHOWN = 4
REPEATED = "the user says the same again"
REFUSED = "an answer is a refusal"


class MultiTurn(Recipe):
    """Conversations of a task."""

    kind: ClassVar[str] = "multi_turn"
    prompts: ClassVar[tuple[str, ...]] = ("multi_turn_opening", "multi_turn_next")

    turns: Annotated[int, Field(ge=2, le=32)] = 3
    """How many questions a conversation has, each with its answer."""

    @property
    def num_requests(self) -> int:
        """The question and the answer of each turn."""
        return 2 * self.turns

    def chain(self, about: About) -> Chain:
        """Each script draws the seeds that it shows."""
        return Independent(partial(self._script, about))

    def _script(self, about: About, number: int) -> Script:
        random = about.random(number)
        system, alike = about.alike(random)
        seeds = random.sample(alike, min(_NUM_SHOWN, len(alike)))
        messages, openings = list[dict[str, str]](), [seed.prompt for seed in seeds]
        prompt = about.prompt("multi_turn_opening", system=system, openings=openings, turns=self.turns)
        while True:
            said = read_object((yield about.request(prompt, schema_of(_MESSAGE))), _MESSAGE)["message"]
            if any(said.split() == message["content"].split() for message in messages):
                return Failed(REPEATED)
            messages.append({"role": "user", "content": said})
            answer = read_text((yield about.request([*messages], system=system)))
            if refuses(answer, "\n".join(message["content"] for message in messages)):
                return Failed(REFUSED)
            messages.append({"role": "assistant", "content": answer})
            if len(messages) == 2 * self.turns:
                return about.conversation(messages, [seed.id for seed in seeds], system=system)
            left = self.turns - len(messages) // 2
            prompt = about.prompt("multi_turn_next", system=system, messages=[*messages], left=left)
