"""Whom a recipe's scripts ask: the teacher that it names, or all in turn; and what is wrong with the teachers given."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sft.config_construction import ConstructConfig, TeacherConfig
from sft.config_rules import Problem
from sft.config_words import did_you_mean
from sft.construction.filters.judge import Graded
from sft.construction.recipes.recipe import Recipe
from sft.construction.recipes.registry import RECIPES
from sft.url_secrets import without_secrets

_FIELD = "construct.teacher"
_OF_SERVED = ("model", "api_key_env")


def teachers_of(recipe: Recipe, teachers: Sequence[TeacherConfig]) -> tuple[int, ...]:
    """The numbers of the teachers that the recipe's scripts ask in turn; none where there is no such one."""
    numbers = range(len(teachers))
    if recipe.teacher:
        return tuple(i for i in numbers if teachers[i].title == recipe.teacher)
    return tuple(i for i in numbers if not (recipe.needs_local and teachers[i].endpoint))


def judge_of(given: Graded, teachers: Sequence[TeacherConfig]) -> int:
    """The number of the teacher that judges."""
    return next((i for i, teacher in enumerate(teachers) if teacher.title == given.teacher), 0)


def teacher_problems(given: TeacherConfig | Sequence[TeacherConfig], forms: Iterable[Any]) -> Iterator[Problem]:
    """What is wrong with the teachers of a config, and with the recipes that need a local one.

    Args:
        given: `construct.teacher`.
        forms: `construct.recipes`, as they are in the file.
    """
    teachers = [given] if isinstance(given, TeacherConfig) else [*given]
    for i, teacher in enumerate(teachers):
        place = _FIELD if isinstance(given, TeacherConfig) else f"{_FIELD}.{i}"
        yield from _problems_of(teacher, place)
    titles = [teacher.title for teacher in teachers]
    for title, num in Counter(titles).items():
        if num > 1:
            yield Problem(
                _FIELD, without_secrets(title), f"{num} teachers have this name", "give each a `name` of its own"
            )
    for i, form in enumerate(forms):
        kind, chosen, place = form.get("kind"), form.get("teacher"), f"construct.recipes.{i}"
        recipe: type[Recipe] | None = RECIPES.get(kind) if isinstance(kind, str) else None
        if recipe is not None and recipe.needs_local:
            asked = [one for one in teachers if not chosen or one.title == chosen]
            if asked and all(one.endpoint for one in asked):
                rule = "needs a local teacher: a served model does not write the user's turn"
                way_out = "give construct.teacher a `path`, or remove it: the model of the config is the default"
                yield Problem(f"{place}.kind", kind, rule, way_out)


def choice_problems(construct: ConstructConfig) -> Iterator[Problem]:
    """Where a recipe or the judge names a teacher that is not there."""
    titles = [teacher.title for teacher in construct.teachers if teacher.title]
    chosen = {f"construct.recipes.{i}.teacher": form.get("teacher") for i, form in enumerate(construct.recipes)}
    if isinstance(judge := construct.filters.get(Graded.name), Mapping):
        chosen[f"construct.filters.{Graded.name}.teacher"] = judge.get("teacher")
    for place, name in chosen.items():
        if isinstance(name, str) and name and name not in titles:
            way_out = did_you_mean(name, titles) if titles else "give construct.teacher, each with a `name`"
            yield Problem(place, name, "there is no teacher of this name", way_out)


def _problems_of(teacher: TeacherConfig, place: str) -> Iterator[Problem]:
    if bool(teacher.endpoint) == (teacher.path is not None):
        given = _shown(teacher) if teacher.endpoint else "neither"
        way_out = "give `endpoint: http://127.0.0.1:8000/v1` of a server, or `path: folder` of a model that is loaded"
        yield Problem(place, given, "a teacher has either an `endpoint` or a `path`", way_out)
    elif teacher.path is not None:
        for field in _OF_SERVED:
            if value := getattr(teacher, field):
                yield Problem(
                    f"{place}.{field}", value, "is of an `endpoint`, and this teacher has a `path`", "remove it"
                )


def _shown(teacher: TeacherConfig) -> Mapping[str, Any]:
    return {"endpoint": without_secrets(teacher.endpoint), "path": teacher.path}
