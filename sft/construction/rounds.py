"""The scripts of all recipes and tasks in rounds, and how each ends: the same in every process.

round 0: chain a 0–31, chain b 0–31 ──run──▶ taken in order ──▶ round 1, which may see them ─▶ …
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from sft.construction.asking import Job, Result
from sft.construction.prompts import Prompts
from sft.construction.recipes.material import Material
from sft.construction.recipes.recipe import About, Chain, Recipe, Seed
from sft.construction.script import Dropped, Failed, Outcome, ScriptName
from sft.construction.spending import Tokens, usual_tokens
from sft.errors import UserError

NOVELTY = "novelty"
"""The filter of a recipe's own rule, which decides what later rounds see."""

Run = Callable[[Sequence[Job]], list[Result]]


class Ended(NamedTuple):
    """A script and its end."""

    name: ScriptName
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Part:
    """What a recipe makes of a task."""

    recipe: Recipe
    task: str
    num: int
    seeds: Sequence[Seed]
    material: Material = field(default_factory=Material)


@dataclass(frozen=True, slots=True)
class Work:
    """All that a construction is to make."""

    parts: Sequence[Part]
    prompts: Prompts
    run_seed: int
    num_hidden: Mapping[str, int] = field(default_factory=dict)
    """Recipe → its passages that are not shown, because they have something of what is held out."""

    @property
    def num(self) -> int:
        """The number of its scripts."""
        return sum(part.num for part in self.parts)

    def outcomes(self, run: Run) -> Iterator[Ended]:
        """Each script and its end, round by round, in a fixed order; `run` runs a round."""
        chains = [self._chain(part) for part in self.parts]
        starts = [0] * len(chains)
        while any(start < part.num for start, part in zip(starts, self.parts, strict=True)):
            jobs, of = [], []
            for i, (part, chain) in enumerate(zip(self.parts, chains, strict=True)):
                numbers = range(starts[i], min(starts[i] + chain.round_size, part.num))
                starts[i] = numbers.stop if numbers else starts[i]
                names = [ScriptName(part.recipe.title, part.task, number) for number in numbers]
                jobs += [Job(name, partial(chain.script, name.number)) for name in names]
                of += [chain] * len(names)
            for job, chain, result in zip(jobs, of, run(jobs), strict=True):
                yield Ended(job.name, _taken(chain, result))

    def estimate(self) -> tuple[int, Tokens]:
        """The requests, and about the most tokens that they take, judged by the first prompt of each part.

        Raises:
            UserError: a prompt cannot be rendered.
        """
        num, tokens = 0, Tokens()
        for part in self.parts:
            script = self._chain(part).script(0)
            one, times = usual_tokens(next(script)), part.num * part.recipe.num_requests
            script.close()
            num, tokens = num + times, tokens + Tokens(one.prompt * times, one.reply * times)
        return num, tokens

    def _chain(self, part: Part) -> Chain:
        about = About(part.recipe, part.task, part.seeds, self.prompts, self.run_seed, part.material)
        return part.recipe.chain(about)


def seeds_of(recipe: Recipe, task: str, seeds: Sequence[Seed], field: str) -> Sequence[Seed]:
    """Those of the recipe's sources.

    Raises:
        UserError: there are none.
    """
    own = [seed for seed in seeds if not recipe.seeds or seed.source in recipe.seeds]
    if own:
        return own
    where = f" in {', '.join(recipe.seeds)}" if recipe.seeds else ""
    raise UserError(
        f"{field}: there is no record of the task {task!r}{where} that may be shown: one that is trained on, with a "
        f"text of the user and a text as answer. Choose other tasks or seeds."
    )


def _taken(chain: Chain, result: Result) -> Outcome:
    if isinstance(result, Failed):
        return result
    reason = chain.take(result)
    return result if reason is None else Dropped(result, NOVELTY, reason)
