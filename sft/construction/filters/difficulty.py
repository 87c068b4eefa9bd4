"""Drops drafts by the base model's own loss: too easy or too hard, or a prompt that does not help with its answer.

With a further model, such as that of a finished stage, also by how much lower the loss is for it. See
`sft.difficulty.example_losses` for the numbers. A high difficulty (IFD) below 1 marks what a model can learn most
from, 1 or more what does not belong together (Li et al. 2023, arXiv 2308.12032).
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from sft.construction.filters.filter import Filter, Judge, Surroundings
from sft.construction.script import Failed
from sft.draft import Draft
from sft.errors import UserError

_Bound = Annotated[float, Field(ge=0.0)] | None


class Difficulty(Filter):
    """Bounds on the losses of the model that is to be trained (`model.path`)."""

    name: ClassVar[str] = "difficulty"
    shorthand: ClassVar[str] = "max_ifd"
    begins_pass: ClassVar[bool] = True

    max_ifd: _Bound = 1.0
    """The largest quotient of an answer's loss behind its prompt and alone."""
    min_ifd: _Bound = None
    """The least such quotient. Default: any."""
    max_loss: _Bound = None
    """The largest mean loss of an answer's tokens. Default: any."""
    min_loss: _Bound = None
    """The least mean loss. Default: any."""
    after: str | None = None
    """A model that was trained since: a finished stage of this run, or a folder or Hub id with the same tokens."""
    min_gain: float | None = None
    """The least by which the mean loss is lower for `after`: what it has not helped with is dropped. Default: any."""
    max_gain: float | None = None
    """The most by which it is lower: what it knows by now is dropped. Default: any."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for what, _, low, high in self.bounds():
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{what} is at most max_{what}, which is {high:g}")
        if self.after is None and (self.min_gain is not None or self.max_gain is not None):
            raise ValueError("a gain is one of a second model: name it with `after`")
        return self

    def bounds(self) -> tuple[tuple[str, str, float | None, float | None], ...]:
        """Each number that is measured: its name, the same in words, the least and the most it may be."""
        return (
            ("loss", "loss", self.min_loss, self.max_loss),
            ("ifd", "IFD", self.min_ifd, self.max_ifd),
            ("gain", "gain", self.min_gain, self.max_gain),
        )

    def begin(self, around: Surroundings) -> Judge:
        """It looks losses up.

        Raises:
            UserError: nobody measures here.
        """
        if len(around.losses) != 1 + (self.after is not None):
            raise UserError("construct.filters.difficulty: there is no model to measure by.")
        return _DifficultyJudge(self, around)


class _DifficultyJudge(Judge):
    def __init__(self, given: Difficulty, around: Surroundings) -> None:
        self._given, self._losses = given, around.losses
        self._scores: dict[str, float] = {}

    def judge(self, draft: Draft, seen: object) -> str | Failed | None:
        """By what was measured; what cannot be compared is kept."""
        del seen
        self._scores = {}
        measured = list[Mapping[str, float]]()
        for losses in self._losses:
            if isinstance(found := losses(draft), Failed):
                return found
            measured.append(found)
        before, *after = measured
        numbers = {**before, "gain": before["loss"] - after[0]["loss"]} if after else before
        self._scores = {name: value for name, value in numbers.items() if math.isfinite(value)}
        for name, title, low, high in self._given.bounds():
            value = self._scores.get(name)
            if value is not None and high is not None and value > high:
                return f"its {title} is above {high:g}"
            if value is not None and low is not None and value < low:
                return f"its {title} is below {low:g}"
        return None

    def scores(self, draft: Draft) -> dict[str, float]:
        """Those of the draft that was judged last."""
        del draft
        return self._scores
