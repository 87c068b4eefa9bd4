"""Drops drafts that a model grades too low by a rubric (Zheng et al. 2023, arXiv 2306.05685).

A judge errs, and likes long answers and its own: compare it with people first. What it is asked goes through the same
log and budget as everything else, once all cheaper filters have judged.
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from sft.config_section import Name
from sft.construction.filters.filter import Filter, Judge, Surroundings
from sft.construction.script import Failed
from sft.draft import Draft
from sft.errors import UserError
from sft.scoring.judge_prompt import DEFAULT_RUBRIC, rubric_text

SCORE = "judge"
"""The grade's name among the scores of a draft: there it is 0 for the worst and 1 for the best, whatever the scale."""


class Graded(Filter):
    """The grade that a model gives an answer."""

    name: ClassVar[str] = "judge"
    shorthand: ClassVar[str] = "at_least"
    example: ClassVar[str] = "{at_least: 4, rubric: It answers what is asked and is right.}"
    begins_pass: ClassVar[bool] = True

    rubric: str = DEFAULT_RUBRIC
    """What counts: a text, or the path of a file (`.txt`, `.md`)."""
    at_least: float
    """The lowest grade that is kept."""
    scale: tuple[int, int] = (1, 5)
    """The worst and the best grade."""
    teacher: Name = ""
    """Which teacher judges. Default: the first one."""
    max_tokens: Annotated[PositiveInt, Field(le=65_536)] = 512
    """The most tokens of a verdict."""

    @field_validator("rubric")
    @classmethod
    def _is_readable(cls, rubric: str) -> str:
        rubric_text(rubric)
        return rubric

    @model_validator(mode="after")
    def _is_a_scale(self) -> Self:
        low, high = self.scale
        if not 0 < high - low <= 100:
            raise ValueError("scale goes from the worst to the best grade, such as [1, 5]")
        if not low < self.at_least <= high:
            raise ValueError(f"at_least is above {low}, the worst grade, and at most {high}, the best")
        return self

    def begin(self, around: Surroundings) -> Judge:
        """It looks grades up.

        Raises:
            UserError: nobody is there to judge.
        """
        if around.grade is None:
            raise UserError("construct.filters.judge: nobody is there to judge.")
        return _GradeJudge(self, around)


class _GradeJudge(Judge):
    def __init__(self, given: Graded, around: Surroundings) -> None:
        assert around.grade is not None
        self._given, self._grade = given, around.grade
        self._scores: dict[str, float] = {}

    def judge(self, draft: Draft, seen: object) -> str | Failed | None:
        """By the grade in the log."""
        del seen
        graded = self._grade(draft)
        if isinstance(graded, Failed):
            self._scores = {}
            return graded
        low, high = self._given.scale
        self._scores = {SCORE: (graded - low) / (high - low)}
        return None if graded >= self._given.at_least else f"its grade is below {self._given.at_least:g}"

    def scores(self, draft: Draft) -> dict[str, float]:
        """The grade of the draft that was judged last."""
        del draft
        return self._scores
