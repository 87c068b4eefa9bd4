"""Drops answers whose number further answers do not confirm: self-consistency (Wang et al. 2022, arXiv 2203.11171)."""

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from sft.construction.filters.draft_parts import DraftParts, answer_of, text_evidence, text_list_evidence
from sft.construction.filters.filter import Look, Surroundings, Verifier
from sft.scoring.number import Number
from sft.scoring.scorer import Answer, Question

_AGREE = re.compile(r"agree_of_(\d{1,3})")


def _num(given: Any) -> Any:
    if isinstance(given, str) and (found := _AGREE.fullmatch(given)):
        return int(found[1])
    return given


class Numbers(Verifier):
    """Whether the number that an answer comes to is that of further answers to the same prompt, its `answers`."""

    name: ClassVar[str] = "numbers"
    shorthand: ClassVar[str] = "agree_of"

    agree_of: Annotated[int, BeforeValidator(_num), Field(ge=1, le=100)] = 5
    """How many further answers are looked at: the first ones. `agree_of_5` is another word for 5."""
    at_least: PositiveInt | None = None
    """How many of these come to the same number. Default: all."""
    tolerance: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The largest difference that still counts as equal, as a share."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.at_least is not None and self.at_least > self.agree_of:
            raise ValueError(f"at_least is at most agree_of, which is {self.agree_of}")
        return self

    def look(self, around: Surroundings) -> Look:
        """By its settings alone."""
        return _NumberLook(self)


class _NumberLook(Look):
    def __init__(self, numbers: Numbers) -> None:
        self._given, self._scorer = numbers, Number(tolerance=numbers.tolerance)

    def see(self, parts: DraftParts) -> str | None:
        """By `sft.scoring.number`."""
        # Code, JSON and whole texts may be the same where their last numbers are not.
        is_number = text_evidence(parts.draft, "verified_by") in ("", "numbers")
        given, others = self._given, text_list_evidence(parts.draft, "answers") if is_number else []
        if not others:
            return "it has no further answers" if given.required else None
        if len(others) < given.agree_of:
            return f"it has fewer than {given.agree_of} further answers"
        reference = Question(references=(answer_of(parts.draft),))
        verdicts = [self._scorer.judge(Answer(other), reference) for other in others[: given.agree_of]]
        if verdicts[0].failed:
            return "the answer comes to no number"
        needed = given.agree_of if given.at_least is None else given.at_least
        if sum(verdict.scores["number"] for verdict in verdicts) < needed:
            return f"fewer than {needed} of {given.agree_of} further answers come to the same number"
        return None
