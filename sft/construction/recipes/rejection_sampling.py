"""Rejection sampling: several answers to a seed's own prompt, of which a verifier chooses one.

    the seed's answer can be verified   only answers that agree with it stay (STaR, arXiv 2203.14465; RFT, 2308.01825)
    else, or by `against: majority`     the largest group of answers that agree (self-consistency, arXiv 2203.11171)

`agreement` in the scores is the share of the answers asked for that stay. The record's prompt is the seed's, word for
word: what a template of the user adds to it is asked, and not learned.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sft.construction.answer_form import FormError, read_text
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe, Seed
from sft.construction.script import Failed, Script
from sft.scoring.exact_match import ExactMatch
from sft.scoring.json_equal import JsonEqual
from sft.scoring.number import Number
from sft.scoring.scorer import Answer, Question, Scorer

_SCORERS: dict[str, tuple[Scorer, str]] = {
    "numbers": (Number(), "number"),
    "json": (JsonEqual(), "json_equal"),
    "exact": (ExactMatch(), "exact_match"),
}
"""How answers are compared, and the metric that says whether two agree."""
NONE_RIGHT = "no answer agrees with the seed's"
NO_MAJORITY = "too few answers agree"
UNREADABLE = "no answer can be verified"


class RejectionSampling(Recipe):
    """New answers to the prompts of seeds, chosen by a verifier."""

    kind: ClassVar[str] = "rejection_sampling"
    prompts: ClassVar[tuple[str, ...]] = ("rejection_sampling",)

    answers: Annotated[int, Field(ge=1, le=64)] = 8
    """How many are asked for, of each prompt."""
    verify: Literal["numbers", "json", "exact"]
    """`numbers`: the last number of an answer; `json`: its JSON; `exact`: all of it but case and punctuation."""
    against: Literal["seed", "majority"] = "seed"
    """`seed`: its answer is right, where it can be verified. `majority`: it does not count."""
    at_least: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """The smallest share of the answers that is a majority."""
    choose: Literal["drawn", "shortest"] = "drawn"
    """Which of the answers that stay: one drawn by the run's seed, or the one with the fewest characters."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """At 0, all answers would be the same."""

    @property
    def num_requests(self) -> int:
        """One for each answer."""
        return self.answers

    def chain(self, about: About) -> Chain:
        """Seeds in turn."""
        return Independent(partial(self._script, about, about.shuffled(about.seeds)))

    def _script(self, about: About, seeds: Sequence[Seed], number: int) -> Script:
        seed, answers = seeds[number % len(seeds)], list[str]()
        prompt, failed = about.prompt("rejection_sampling", prompt=seed.prompt), Failed(UNREADABLE)
        for _ in range(self.answers):
            try:
                answers.append(read_text((yield about.request(number, prompt))))
            except FormError as error:
                failed = error.failed
        if not answers:
            return failed
        stay = self._agreeing(answers, seed.answer) if self.against == "seed" else None
        if stay is None:
            stay = max((self._agreeing(answers, answer) or [] for answer in answers), key=len)
            if not stay:
                return Failed(UNREADABLE)
            if len(stay) < self.at_least * self.answers:
                return Failed(NO_MAJORITY)
        if not stay:
            return Failed(NONE_RIGHT)
        chosen = (
            min(stay, key=lambda i: len(answers[i])) if self.choose == "shortest" else about.random(number).choice(stay)
        )
        others = [answer for i, answer in enumerate(answers) if i != chosen]
        return about.conversation(
            ({"role": "user", "content": seed.prompt}, {"role": "assistant", "content": answers[chosen]}),
            [seed.id],
            scores={"agreement": len(stay) / self.answers},
            evidence={"prompt_of": seed.id, "answers": others, "reference": seed.answer},
        )

    def _agreeing(self, answers: Sequence[str], reference: str) -> list[int] | None:
        """The numbers of those that agree with a reference; None where it cannot be verified against."""
        scorer, metric = _SCORERS[self.verify]
        verdicts = [scorer.judge(Answer(answer), Question(references=(reference,))) for answer in answers]
        if verdicts[0].failed:
            return None
        return [i for i, verdict in enumerate(verdicts) if verdict.scores[metric] == 1.0]
