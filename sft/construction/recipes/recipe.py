"""What a recipe is: settings, and for each task a chain of scripts.

    Recipe ──chain(task, seeds)──▶ Chain ──script(number)──▶ Script
                                     └─take(draft): later scripts may see it

A script may see the drafts of those that stand a window or more before it, in their order; so it asks the same, however
many scripts run at once. A larger `num` adds scripts and changes none.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from sft.config_section import Name
from sft.config_words import did_you_mean
from sft.construction.answer_form import FormError
from sft.construction.prompts import Prompts
from sft.construction.recipes.material import Material
from sft.construction.script import Script
from sft.draft import Draft, Provenance
from sft.endpoint.chat import ChatRequest
from sft.schema import JsonObject
from sft.seeds import derive_seed

SYSTEM = "system"
"""The template that shows a system text."""
_SOURCES = "data.sources."
T = TypeVar("T")


def _tasks(given: Any) -> Any:
    if isinstance(given, str) and given not in ("rare", "all"):
        way_out = did_you_mean(given, ["rare", "all"], "of single tasks, give a list of their names")
        raise PydanticCustomError("tasks", "must be `rare`, `all` or a list of names", {"way_out": way_out})
    return given


def _names(given: Any) -> Any:
    names = [given] if isinstance(given, str) else given
    is_list = isinstance(names, list | tuple)
    return [n.removeprefix(_SOURCES) if isinstance(n, str) else n for n in names] if is_list else names


@dataclass(frozen=True, slots=True)
class Seed:
    """A record to show: its first turn of the user, and the answer to it.

    Answers depend on a system text. So a script shows seeds of one system text alone, and its record gets this one.
    """

    id: str
    prompt: str
    answer: str
    source: str
    tests: tuple[str, ...] = ()
    """Of its record, for code."""
    setup_code: str = ""
    system: str = ""
    """The text that stands before them; empty where there is none."""


class Recipe(BaseModel, ABC):
    """The settings that all recipes have: immutable, and unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    kind: ClassVar[str]
    """Its name in a config."""
    prompts: ClassVar[tuple[str, ...]]
    """The templates that it uses."""
    needs_local: ClassVar[bool] = False
    """Whether a served model cannot do what it asks for."""
    takes_system: ClassVar[bool] = True
    """Whether seeds with a system text may be shown."""

    @property
    @abstractmethod
    def num_requests(self) -> int:
        """The most that one script asks."""

    @property
    def num_texts(self) -> int:
        """The most answers of a script that stand in its record."""
        return self.num_requests

    name: Name = ""
    """Tells two recipes of a kind apart. Default: the kind."""
    num: PositiveInt
    """How many records are made, before filters."""
    tasks: Annotated[str | tuple[str, ...], BeforeValidator(_tasks)] = "rare"
    """`rare`, `all`, or names."""
    tokens_per_task: PositiveInt | None = None
    """Of `rare`: the supervised tokens that a task is to have; no more records are asked for than it lacks. Empty: an
    equal share of all says which tasks are rare, and all of `num` is asked for."""
    seeds: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """The sources whose records are shown. Default: all."""
    teacher: str = ""
    """The name of whom it asks. Default: all teachers in turn."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.7
    """0 takes the most probable token each time."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Tokens are drawn from the most probable ones that together have this probability."""
    max_tokens: PositiveInt = 1024
    """The most tokens of one answer."""

    @model_validator(mode="after")
    def _only_rare_tasks_have_a_target(self) -> Self:
        if self.tokens_per_task is not None and (self.tasks != "rare" or self.new_task):
            problem, way_out = "says how much of `rare` tasks is wanted", "leave it out, or give `tasks: rare`"
            raise PydanticCustomError("target", f"`tokens_per_task` {problem}", {"way_out": way_out})
        return self

    @property
    def title(self) -> str:
        """Its name, or its kind."""
        return self.name or self.kind

    @property
    def new_task(self) -> str:
        """The task that it makes without seeds; empty where it makes more of `tasks`."""
        return ""

    def material(self) -> Material:
        """What it reads of the user's own files.

        Raises:
            UserError: names all that is wrong with them.
        """
        return Material()

    @abstractmethod
    def chain(self, about: "About") -> "Chain":
        """The scripts for a task."""


class Chain(Protocol):
    """The scripts of a recipe for a task."""

    @property
    def window(self) -> int | None:
        """How many scripts in a row do not see each other's drafts: no more can be under way. None: they never do."""
        ...

    def script(self, number: int) -> Script:
        """The script of this number. It sees the drafts that were taken when it begins, and none that come later."""
        ...

    def take(self, draft: Draft) -> str | None:
        """Called with each draft in the order of the scripts; why it is dropped, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Independent:
    """A chain whose scripts see no drafts."""

    begin: Callable[[int], Script]
    """The script of a number. It may raise `FormError`, which ends it."""
    window: None = None

    def script(self, number: int) -> Script:
        """Run it."""
        try:
            return (yield from self.begin(number))
        except FormError as error:
            return error.failed

    def take(self, draft: Draft) -> str | None:
        """Keep all: copies are the filters' matter."""
        del draft
        return None


@dataclass(frozen=True, slots=True)
class About:
    """What a chain is made from, and what its scripts share."""

    recipe: Recipe
    task: str
    seeds: Sequence[Seed]
    prompts: Prompts
    run_seed: int
    material: Material = field(default_factory=Material)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """In the order in which scripts use them: each once, before one is used again."""
        draw = Random(derive_seed(self.run_seed, "construct", self.recipe.title, self.task, "order"))
        return draw.sample(items, len(items))

    def alike(self, random: Random) -> tuple[str, list[Seed]]:
        """A system text and the seeds that have it: that of a seed drawn at random, if there are several texts."""
        seeds = [*self.seeds]
        if len({seed.system for seed in seeds}) < 2:
            return (seeds[0].system if seeds else ""), seeds
        system = random.choice(seeds).system
        return system, [seed for seed in seeds if seed.system == system]

    def random(self, number: int) -> Random:
        """The only randomness of a script."""
        return Random(derive_seed(self.run_seed, "construct", self.recipe.title, self.task, number))

    def request(
        self,
        prompt: str | Sequence[JsonObject],
        schema: JsonObject | None = None,
        temperature: float | None = None,
        system: str = "",
    ) -> ChatRequest:
        """A request with a single turn of the user, or with a whole conversation; `system` stands before it."""
        recipe = self.recipe
        return ChatRequest(
            "",  # whoever asks names it
            [*_system_turn(system), *([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)],
            recipe.max_tokens,
            temperature=recipe.temperature if temperature is None else temperature,
            top_p=recipe.top_p,
            schema=schema,
        )

    def prompt(self, name: str, *, system: str = "", **values: Any) -> str:
        """The text of a template for this task, behind the system text of what it shows."""
        text = self.prompts.render(name, task=self.task, **values)
        return f"{self.prompts.render(SYSTEM, system=system)}\n\n{text}" if system else text

    def draft(self, prompt: str, answer: str, shown: Sequence[str], *, system: str = "", **evidence: Any) -> Draft:
        """A conversation of one turn; see `conversation`."""
        messages = {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}
        return self.conversation(messages, shown, system=system, evidence=evidence)

    def conversation(
        self,
        messages: Sequence[JsonObject],
        shown: Sequence[str],
        *,
        system: str = "",
        tools: Sequence[JsonObject] = (),
        scores: Mapping[str, float] | None = None,
        evidence: JsonObject | None = None,
    ) -> Draft:
        """A draft; whoever asked adds what it took to its provenance."""
        recipe = self.recipe
        parameters = {"temperature": recipe.temperature, "top_p": recipe.top_p, "max_tokens": recipe.max_tokens}
        fingerprint = self.prompts.fingerprint((*recipe.prompts, SYSTEM) if system else recipe.prompts)
        provenance = Provenance(recipe.title, "", fingerprint, parameters, tuple(shown), scores=scores or {})
        turns = *_system_turn(system), *messages
        return Draft(turns, self.task, provenance, tuple(tools), evidence or {})


def _system_turn(system: str) -> list[JsonObject]:
    return [{"role": "system", "content": system}] if system else []
