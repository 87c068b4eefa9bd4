"""All recipes by kind, and how a config names one: `{kind: few_shot, tasks: [sorting], num: 100}`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from sft.config_rules import Problem
from sft.config_words import did_you_mean, in_our_words
from sft.construction.recipes.back_translation import BackTranslation
from sft.construction.recipes.evolve import Evolve
from sft.construction.recipes.few_shot import FewShot
from sft.construction.recipes.from_documents import FromDocuments
from sft.construction.recipes.magpie import Magpie
from sft.construction.recipes.multi_turn import MultiTurn
from sft.construction.recipes.paraphrase import Paraphrase
from sft.construction.recipes.persona import Persona
from sft.construction.recipes.recipe import Recipe
from sft.construction.recipes.rejection_sampling import RejectionSampling
from sft.construction.recipes.self_instruct import SelfInstruct
from sft.construction.recipes.tool_calls import ToolCalls

_ALL: tuple[type[Recipe], ...] = (
    *(SelfInstruct, FewShot, Magpie, Evolve, Persona, Paraphrase, MultiTurn, RejectionSampling),
    *(FromDocuments, BackTranslation, ToolCalls),
)
RECIPES: Mapping[str, type[Recipe]] = {recipe.kind: recipe for recipe in _ALL}

_FIELD = "construct.recipes"
_EXAMPLE = "`{kind: self_instruct, tasks: rare, num: 500}`"


def recipe_problems(forms: Iterable[Any]) -> Iterator[Problem]:
    """What is wrong with the recipes that a config lists."""
    titles = []
    for i, form in enumerate(forms):
        place, kind = f"{_FIELD}.{i}", form.get("kind")
        recipe = RECIPES.get(kind) if isinstance(kind, str) else None
        if kind is None:
            yield Problem(f"{place}.kind", "missing", "a recipe has a kind", f"add it, as in {_EXAMPLE}")
        elif recipe is None:
            yield Problem(f"{place}.kind", kind, "there is no recipe of this kind", did_you_mean(kind, [*RECIPES]))
        else:
            try:
                titles.append(_read(recipe, form).title)
            except ValidationError as error:
                yield from _problems(recipe, place, error)
    for title, num in Counter(titles).items():
        if num > 1:
            yield Problem(_FIELD, title, f"{num} recipes have this name", "give each a `name` of its own")


def read_recipes(forms: Sequence[Mapping[str, Any]]) -> tuple[Recipe, ...]:
    """The recipes that a config lists, without problems."""
    return tuple(_read(RECIPES[form["kind"]], form) for form in forms)


def _read(recipe: type[Recipe], form: Mapping[str, Any]) -> Recipe:
    return recipe(**{str(key): value for key, value in form.items() if key != "kind"})


def _problems(recipe: type[Recipe], place: str, error: ValidationError) -> Iterator[Problem]:
    # One of several types is named at the end of a place: a wrong value has a problem for each.
    by_setting = {"".join(map(str, problem["loc"][:1])): problem for problem in error.errors()}
    for setting, problem in by_setting.items():
        # A rule between several settings names none.
        where = f"{place}.{setting}" if setting else place
        if problem["type"] == "missing":
            yield Problem(where, "missing", f"{recipe.kind} needs it", f"add it, as in {_EXAMPLE}")
        elif problem["type"] == "extra_forbidden":
            way_out = did_you_mean(setting, ["kind", *recipe.model_fields])
            yield Problem(where, problem["input"], f"{recipe.kind} has no such setting", way_out)
        else:
            rule = in_our_words(problem["msg"].removeprefix("Value error, "))
            way_out = problem.get("ctx", {}).get("way_out", "correct it")
            yield Problem(where, problem["input"] if setting else recipe.kind, rule, way_out)
