"""The scripts of all recipes and tasks, and how each ends: the same in every process.

Part ──▶ Course: script n begins when all before n − window + 1 have ended, and sees their drafts in order
Work ──▶ the outcomes of all courses in turn: script 0 of each, script 1 of each, …
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from sft.construction.asking import NOT_ASKED, Job, Result
from sft.construction.prompts import Prompts
from sft.construction.recipes.material import Material
from sft.construction.recipes.recipe import About, Recipe, Seed
from sft.construction.script import Dropped, Failed, Outcome, ScriptName
from sft.construction.spending import Tokens, usual_tokens
from sft.endpoint.chat import ChatRequest

NOVELTY = "novelty"
"""The filter of a recipe's own rule, which decides what later scripts see."""
_MOST_AHEAD = 1024
"""Of scripts that see no other: so far one may be ahead of the first that has not ended. It bounds the memory."""


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
    teachers: Sequence[int] = (0,)
    """The numbers of the teachers that its scripts ask in turn."""
    material: Material = field(default_factory=Material)


class Course:
    """A part under way: which script may begin, and what came of those before."""

    def __init__(self, part: Part, about: About, *, is_read: bool = True) -> None:
        """Nothing has begun. `is_read`: whether anybody reads `taken`."""
        self._part, self._chain = part, part.recipe.chain(about)
        self._window = self._chain.window
        self._num_begun = self._num_ended = self._num_taken = 0
        self._results: dict[int, Result] = {}
        """Of scripts that have ended and are not taken yet: at most a window of them."""
        self.taken: deque[Ended] = deque(maxlen=None if is_read else 0)
        """What came of scripts, in their order; whoever reads it removes it."""

    @property
    def may_begin(self) -> bool:
        """Whether there is a script left, and all that it sees has ended."""
        return self._num_begun < self._part.num and self._num_begun - self._num_ended < (self._window or _MOST_AHEAD)

    @property
    def next_teacher(self) -> int:
        """The number of the teacher that the next script asks."""
        return self._part.teachers[self._num_begun % len(self._part.teachers)]

    def begin(self) -> Job:
        """The next script. It sees what it would see in any process, however many have ended meanwhile."""
        assert self.may_begin
        number = self._num_begun
        if self._window is not None:
            self._take_until(number - self._window + 1)
        job = Job(self._name(number), partial(self._chain.script, number), self.next_teacher)
        self._num_begun += 1
        return job

    def end(self, number: int, result: Result) -> None:
        """A script has ended; the last one of all ends the course."""
        self._results[number] = result
        while self._num_ended in self._results:
            self._num_ended += 1
        if self._window is None or self._num_ended == self._part.num:
            self._take_until(self._num_ended)

    def leave(self, number: int) -> None:
        """A script waits for a teacher that is away. So do those that would see its draft, and no others."""
        if self._window is None:
            self.end(number, NOT_ASKED)

    def _take_until(self, number: int) -> None:
        while self._num_taken < number:
            result = self._results.pop(self._num_taken)
            outcome: Outcome = result
            if not isinstance(result, Failed) and (reason := self._chain.take(result)) is not None:
                outcome = Dropped(result, NOVELTY, reason)
            self.taken.append(Ended(self._name(self._num_taken), outcome))
            self._num_taken += 1

    def _name(self, number: int) -> ScriptName:
        return ScriptName(self._part.recipe.title, self._part.task, number)


@dataclass(frozen=True, slots=True)
class Work:
    """All that a construction is to make."""

    parts: Sequence[Part]
    prompts: Prompts
    run_seed: int
    num_hidden: Mapping[str, int] = field(default_factory=dict)
    """Recipe → its passages that are not shown, because they have something of what is held out."""
    no_seeds: Mapping[str, int] = field(default_factory=dict)
    """Why records that were drawn are no seeds → how many."""
    without_seeds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Recipe → tasks that `rare` or `all` would mean, if something of them could be shown."""

    @property
    def num(self) -> int:
        """The number of its scripts."""
        return sum(part.num for part in self.parts)

    def courses(self) -> list[Course]:
        """Those of all parts; the recipes in turn, so that a small budget shows something of each."""
        of_recipe: dict[str, list[Part]] = {}
        for part in self.parts:
            of_recipe.setdefault(part.recipe.title, []).append(part)
        parts = (part for turn in zip_longest(*of_recipe.values()) for part in turn if part is not None)
        return [Course(part, self._about(part), is_read=False) for part in parts]

    def outcomes(self, run: Callable[[Job], Result]) -> Iterator[Ended]:
        """Each script and its end, the parts in turn; `run` runs a script."""
        running = [self._outcomes(part, run) for part in self.parts]
        while running:
            left = []
            for one in running:
                if (ended := next(one, None)) is not None:
                    yield ended
                    left.append(one)
            running = left

    def estimate(self) -> tuple[int, Tokens]:
        """The requests, and about the most tokens that they take, judged by the first prompt of each part.

        Raises:
            UserError: a prompt cannot be rendered.
        """
        num, tokens = 0, Tokens()
        for part in self.parts:
            script = part.recipe.chain(self._about(part)).script(0)
            first = next(script)
            assert isinstance(first, ChatRequest)
            one, times = usual_tokens(first), part.num * part.recipe.num_requests
            script.close()
            num, tokens = num + times, tokens + Tokens(one.prompt * times, one.reply * times)
        return num, tokens

    def _outcomes(self, part: Part, run: Callable[[Job], Result]) -> Iterator[Ended]:
        course = Course(part, self._about(part))
        for number in range(part.num):
            course.end(number, run(course.begin()))
            while course.taken:
                yield course.taken.popleft()

    def _about(self, part: Part) -> About:
        return About(part.recipe, part.task, part.seeds, self.prompts, self.run_seed, part.material)
