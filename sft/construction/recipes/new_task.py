"""Settings of recipes that work from the user's files: what they make is a task of its own name, and shows no seeds."""

from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from sft.config_section import TaskName
from sft.construction.recipes.recipe import Recipe


def _unused(given: Any) -> Any:
    way_out = "leave it out: `task` names what is made"
    raise PydanticCustomError("unused", "be absent: no records are shown", {"way_out": way_out})


class NewTask(Recipe):
    """Makes the task `task`."""

    task: TaskName
    """What it makes; a task of the data or a new one."""
    tasks: Annotated[str | tuple[str, ...], BeforeValidator(_unused)] = ()
    """Not of this recipe."""
    seeds: Annotated[tuple[str, ...], BeforeValidator(_unused)] = ()
    """Not of this recipe."""

    @property
    def new_task(self) -> str:
        """`task`."""
        return self.task
