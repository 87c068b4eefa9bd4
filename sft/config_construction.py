"""The section of the config that says which records a teacher makes, and for how much."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sft.config_effects import AffectsNothing
from sft.config_paths import WRITTEN, NamesPath
from sft.config_section import Section


class TeacherConfig(Section):
    """A served model that makes records."""

    endpoint: AffectsNothing[Annotated[str, Field(min_length=1)]]
    """The address of a server of OpenAI's chat completions, up to and with `/v1`."""
    model: AffectsNothing[str] = ""
    """Its name there. Default: the only one that the server has."""
    api_key_env: AffectsNothing[str] = ""
    """The variable of the environment that holds the key. Default: `OPENAI_API_KEY`, if it is set."""
    at_once: AffectsNothing[Annotated[int, Field(ge=1, le=1024)]] = 32
    """The most requests under way. It changes no record."""


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


class DataCardConfig(Section):
    """What only you know of the records, for `DATA_CARD.md`. What is not given is "not stated" there."""

    licence: AffectsNothing[str] = ""
    """The licence of the records, such as `cc-by-4.0`."""
    seed_licences: AffectsNothing[dict[str, str]] = {}
    """Source → the licence of its records, which a teacher is shown."""
    teacher_terms: AffectsNothing[str] = ""
    """What the terms of the teacher say of records that it makes."""
    language: AffectsNothing[tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...]] = ()
    """The languages of the records, by their codes: `[en, de]`."""
    notes: AffectsNothing[str] = ""
    """What else whoever gets the records should know, in Markdown."""


class ConstructConfig(Section):
    """What `sft construct` makes (see docs/CONSTRUCTION.md)."""

    teacher: TeacherConfig
    """Who makes it."""
    recipes: AffectsNothing[Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]]
    """How: a list of recipes with their settings, such as `{kind: self_instruct, tasks: rare, num: 500}`."""
    filters: AffectsNothing[dict[str, Any]] = {}
    """What is dropped of that: filters with their settings."""
    budget: ConstructionBudget = ConstructionBudget()
    """What may be spent. Default: anything."""
    prompts: AffectsNothing[Annotated[Path | None, NamesPath()]] = None
    """A folder with prompts of your own: a file there replaces that of the same name of the program."""
    card: DataCardConfig = DataCardConfig()
    """What the data card says of licences and terms."""
    out: AffectsNothing[Annotated[Path, WRITTEN]]
    """The folder for what is made. One config writes there."""
