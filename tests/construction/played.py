"""Plays a script of a recipe with replies that are given one by one."""

import json
from typing import Any

from sft.construction.prompts import Prompts
from sft.construction.recipes.recipe import About, Seed
from sft.construction.recipes.registry import read_recipes
from sft.construction.script import Elsewhere, Failed
from sft.draft import Draft
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply

ASKED = Seed("one", "How much is 3 + 4?", "It is 7.", "sums")


def played(
    form: dict[str, Any], replies: list[Any], known: list[Seed] | None = None, number: int = 0
) -> tuple[Draft | Failed, list[ChatRequest]]:
    """How a script ends that gets these replies, and what it asked. An object is sent as JSON, None is no reply."""
    (recipe,) = read_recipes([{"num": 9, **form}])
    of = () if recipe.new_task else known or [ASKED]
    script = recipe.chain(About(recipe, "sums", of, Prompts(), 3, recipe.material())).script(number)
    first = next(script)
    assert isinstance(first, ChatRequest)
    asked = [first]
    for reply in replies:
        text = reply if isinstance(reply, str) else json.dumps(reply)
        try:
            following = script.send(NoReply("away") if reply is None else ChatReply(text))
            while isinstance(following, Elsewhere):
                following = script.send(following.run())
            asked.append(following)
        except StopIteration as ended:
            assert len(asked) == len(replies), "it ended early"
            return ended.value, asked
    raise AssertionError(f"it goes on: {asked[-1].messages}")


def answer_of(outcome: Draft | Failed) -> str:
    assert isinstance(outcome, Draft), outcome
    return str(outcome.messages[-1]["content"])
