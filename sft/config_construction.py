"""The section of the config that says which records a teacher makes, and for how much."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, Tag

from sft.config_effects import AffectsNothing
from sft.config_paths import WRITTEN, NamesPath
from sft.config_section import Name, Section


class TeacherConfig(Section):
    """A model that makes records: a served one, or one that is loaded on the workers of `cluster`."""

    name: AffectsNothing[Name | None] = None
    """By which a recipe chooses it. Default: that of the model."""
    endpoint: AffectsNothing[str] = ""
    """The address of a server of OpenAI's chat completions, up to and with `/v1`."""
    model: AffectsNothing[str] = ""
    """With `endpoint`: its name there. Default: the only one that the server has."""
    api_key_env: AffectsNothing[str] = ""
    """With `endpoint`: the variable of the environment that holds the key. Default: `OPENAI_API_KEY`, if it is set."""
    path: AffectsNothing[Annotated[str | None, NamesPath(hub="model")]] = None
    """A Hugging Face folder or Hub id of a model that is loaded: one replica on each worker."""
    at_once: AffectsNothing[Annotated[int, Field(ge=1, le=1024)] | None] = None
    """The most requests under way. It changes no record. Default: 32 of an endpoint, 64 for each worker."""

    @property
    def title(self) -> str:
        """Its name."""
        return self.name or self.model or (self.path or "").rstrip("/").rpartition("/")[2] or self.endpoint


def _form_of_teacher(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Teachers = Annotated[
    Annotated[TeacherConfig, Tag("one")] | Annotated[tuple[TeacherConfig, ...], Field(min_length=1), Tag("several")],
    Discriminator(_form_of_teacher),
]


class ConstructionBudget(Section):
    """What may be spent; at each limit, nothing more is asked. What the folder's log holds counts, too."""

    requests: AffectsNothing[PositiveInt | None] = None
    """The most requests."""
    tokens: AffectsNothing[PositiveInt | None] = None
    """The most tokens, of prompts and answers together."""
    cost: AffectsNothing[PositiveFloat | None] = None
    """The highest cost, in the currency of the price."""
    price_per_million_tokens: AffectsNothing[tuple[NonNegativeFloat, NonNegativeFloat] | None] = None
    """What a million tokens cost: those of prompts, and those of answers."""


class ConstructConfig(Section):
    """What `sft construct` makes (see docs/CONSTRUCTION.md)."""

    teacher: AffectsNothing[Teachers | None] = None
    """Who makes it: one, or a list, whom scripts ask in turn. Default: the model of the config, on its workers."""
    recipes: AffectsNothing[Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]]
    """How: a list of recipes with their settings, such as `{kind: self_instruct, tasks: rare, num: 500}`."""
    filters: AffectsNothing[dict[str, Any]] = {}
    """What is dropped of that: filters with their settings."""
    budget: ConstructionBudget = ConstructionBudget()
    """What may be spent. Default: anything."""
    prompts: AffectsNothing[Annotated[Path | None, NamesPath()]] = None
    """A folder with prompts of your own: a file there replaces that of the same name of the program."""
    out: AffectsNothing[Annotated[Path, WRITTEN]]
    """The folder for what is made. One config writes there."""

    @property
    def teachers(self) -> tuple[TeacherConfig, ...]:
        """All teachers; one without address and path is the config's own model."""
        if isinstance(self.teacher, TeacherConfig):
            return (self.teacher,)
        return self.teacher or (TeacherConfig(),)
