"""Of which tasks each recipe makes how many records, and the seeds of these tasks.

`rare` and `all` mean the tasks of which something can be shown: where a recipe has no seed of one, such as a task whose
records all have tools, the others share its number. A task that a config names is refused instead (`seeds_of`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from sft.construction.recipes.recipe import Recipe
from sft.construction.seeds import TaskSeeds, shown_seeds
from sft.construction.wanted import Supervised, wanted_counts
from sft.errors import UserError


class ChosenTasks(NamedTuple):
    """What is wanted, and what may be shown for it."""

    wanted: Sequence[Mapping[str, int]]
    """Of each recipe: task → the number of its records."""
    seeds: Mapping[str, TaskSeeds]
    """Of each of these tasks that is made from seeds, and of those that have none."""
    without_seeds: Mapping[str, Sequence[str]]
    """Recipe → the tasks that it would make, if something of them could be shown."""


def choose_tasks(
    recipes: Sequence[Recipe],
    supervised: Mapping[str, Supervised],
    read: Callable[[Collection[str]], Mapping[str, TaskSeeds]],
) -> ChosenTasks:
    """Divide the number of each recipe.

    Args:
        recipes: all of a config.
        supervised: what of each task may be trained on.
        read: gives the seeds of tasks; asked for each task at most once.

    Raises:
        UserError: a recipe's tasks are not there or held out, or a source cannot be read any more.
    """
    seeds, without = dict[str, TaskSeeds](), dict[str, list[str]]()
    first = wanted = [_wanted(recipe, supervised) for recipe in recipes]
    # What a task without seeds leaves may come to one that was too far behind to get any.
    while unread := _made_from_seeds(recipes, wanted) - seeds.keys():
        seeds |= read(unread)
        without = {recipe.title: [task for task in seeds if not shown_seeds(recipe, seeds[task])] for recipe in recipes}
        wanted = [_wanted(recipe, supervised, without[recipe.title]) for recipe in recipes]
    left_out = {
        recipe.title: [task for task in before if task not in counts]
        for recipe, before, counts in zip(recipes, first, wanted, strict=True)
    }
    return ChosenTasks(wanted, seeds, {title: tasks for title, tasks in left_out.items() if tasks})


def tasks_field(recipe: Recipe) -> str:
    """Where its tasks stand in a config, for messages."""
    return f"construct.recipes: {recipe.title}.tasks"


def _made_from_seeds(recipes: Sequence[Recipe], wanted: Sequence[Mapping[str, int]]) -> set[str]:
    return {task for recipe, counts in zip(recipes, wanted, strict=True) for task in counts if not recipe.new_task}


def _wanted(recipe: Recipe, supervised: Mapping[str, Supervised], without: Collection[str] = ()) -> dict[str, int]:
    if not (task := recipe.new_task):
        field, target = tasks_field(recipe), recipe.tokens_per_task
        return wanted_counts(recipe.tasks, recipe.num, supervised, field, without, target)
    if task in supervised and not supervised[task].num_tokens:
        raise UserError(
            f"construct.recipes: {recipe.title}.task: {task}: held out, so what is made would not be trained on. "
            f"Choose another name."
        )
    return {task: recipe.num}
