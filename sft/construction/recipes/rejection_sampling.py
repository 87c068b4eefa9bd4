"""Rejection sampling: several answers to a seed's own prompt, of which a verifier chooses one.

    code                                only answers that pass the tests of the seed's record stay
    the seed's answer can be verified   only answers that agree with it stay (STaR, arXiv 2203.14465; RFT, 2308.01825)
    else, or by `against: majority`     the largest group of answers that agree (self-consistency, arXiv 2203.11171)

`agreement` in the scores is the share of the answers asked for that stay. The record's prompt is the seed's, word for
word: what a template of the user adds to it is asked, and not learned.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from sft.construction.answer_form import FormError, read_text
from sft.construction.recipes.material import Material
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe, Seed
from sft.construction.recipes.verification import Tests, agreeing, code_judging, largest_group, passing
from sft.construction.script import Elsewhere, Failed, Script
from sft.errors import UserError

NONE_RIGHT = "no answer is right"
NO_MAJORITY = "too few answers agree"
UNREADABLE = "no answer can be verified"


class RejectionSampling(Recipe):
    """New answers to the prompts of seeds, chosen by a verifier."""

    kind: ClassVar[str] = "rejection_sampling"
    prompts: ClassVar[tuple[str, ...]] = ("rejection_sampling",)

    answers: Annotated[int, Field(ge=1, le=64)] = 8
    """How many are asked for, of each prompt."""
    verify: Literal["numbers", "json", "exact", "code"]
    """`numbers`: the last number of an answer; `json`: its JSON; `exact`: all of it but case and punctuation.
    `code`: its Python, by the tests of the seed's record."""
    against: Literal["seed", "majority"] = "seed"
    """`seed`: its answer is right, where it can be verified. `majority`: it does not count."""
    at_least: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """The smallest share of the answers that is a majority."""
    choose: Literal["drawn", "shortest"] = "drawn"
    """Which of the answers that stay: one drawn by the run's seed, or the one with the fewest characters."""
    allow_code: bool = False
    """Whether code that the teacher wrote may run here, in the sandbox."""
    seconds: Annotated[float, Field(gt=0.0, le=600.0)] = 10.0
    """The most time for the code of an answer and its tests."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """At 0, all answers would be the same."""

    @model_validator(mode="after")
    def _is_allowed(self) -> Self:
        if self.verify == "code" and not self.allow_code:
            way_out = "if it may run here, in the sandbox, add `allow_code: true`"
            raise PydanticCustomError("code", "`verify: code` runs what the teacher wrote", {"way_out": way_out})
        if self.verify == "code" and self.against == "majority":
            way_out = "leave `against` out"
            raise PydanticCustomError("code", "code is verified by tests, not by a majority", {"way_out": way_out})
        return self

    @property
    def num_requests(self) -> int:
        """One for each answer."""
        return self.answers

    @property
    def num_texts(self) -> int:
        """Its prompt is the seed's, and one answer stays."""
        return 1

    def material(self) -> Material:
        """None; for code, the sandbox is tried."""
        if self.verify == "code":
            code_judging(self.seconds)
        return Material()

    def chain(self, about: About) -> Chain:
        """Seeds in turn; for code, those with tests.

        Raises:
            UserError: there are none with tests.
        """
        seeds = about.shuffled([seed for seed in about.seeds if seed.tests or self.verify != "code"])
        if not seeds:
            raise UserError(
                f"construct.recipes: {self.title}.verify: code: of the records of the task {about.task!r} that may be "
                f"shown, none has tests. Name their column: data.sources.NAME.grading.tests."
            )
        return Independent(partial(self._script, about, seeds))

    def _script(self, about: About, seeds: Sequence[Seed], number: int) -> Script:
        seed, answers = seeds[number % len(seeds)], list[str]()
        prompt, failed = about.prompt("rejection_sampling", prompt=seed.prompt), Failed(UNREADABLE)
        for _ in range(self.answers):
            try:
                answers.append(read_text((yield about.request(prompt, system=seed.system))))
            except FormError as error:
                failed = error.failed
        if not answers:
            return failed
        verify = partial(self._right, answers, seed)
        stay = (yield Elsewhere(verify)) if self.verify == "code" else verify()
        if isinstance(stay, Failed):
            return stay
        chosen = about.random(number).choice(stay)
        if self.choose == "shortest":
            chosen = min(stay, key=lambda i: len(answers[i]))
        others = [answer for i, answer in enumerate(answers) if i != chosen]
        evidence: dict[str, Any] = {"prompt_of": seed.id, "answers": others, "reference": seed.answer}
        evidence["verified_by"] = self.verify
        if self.verify == "code":
            evidence |= {"tests": [*seed.tests], "setup_code": seed.setup_code}
        return about.conversation(
            ({"role": "user", "content": seed.prompt}, {"role": "assistant", "content": answers[chosen]}),
            [seed.id],
            system=seed.system,
            scores={"agreement": len(stay) / self.answers},
            evidence=evidence,
        )

    def _right(self, answers: Sequence[str], seed: Seed) -> list[int] | Failed:
        """The numbers of those that stay, one at least."""
        if self.verify == "code":
            passed = passing(answers, Tests(seed.tests, seed.setup_code, self.seconds))
            return (
                Failed("the tests cannot tell whether code is right")
                if passed is None
                else passed or Failed(NONE_RIGHT)
            )
        if self.against == "seed":
            right = agreeing(self.verify, answers, seed.answer)
            if right is not None:
                return right or Failed(NONE_RIGHT)
        group = largest_group(self.verify, answers)
        if not group:
            return Failed(UNREADABLE)
        return group if len(group) >= self.at_least * self.answers else Failed(NO_MAJORITY)
