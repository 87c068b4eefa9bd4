"""A scorer of the user's own: `module:function`, called as `function(answer, references, record)`.

It returns a number, true or false, or several numbers by name: the one under the function's own name is its score, else
the first. So what decides by the score knows its name before the function was ever called. The module is imported from
the working folder only because the config names it.
"""

import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from sft.errors import UserError
from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict

OWN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


class OwnFunction(Settings):
    """Calls a function of the user's."""

    needs: ClassVar[Need] = "nothing"

    function: Annotated[str, Field(pattern=OWN)]
    """`module:function`."""
    scale: tuple[float, float] | None = (0.0, 1.0)
    """The least and the most that its score can be, brought to 0 … 1; None: any number, which is not averaged with the
    scores of other tasks. Its other numbers stay as they are."""

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and scale[0] >= scale[1]:
            raise ValueError("the least of a scale stands before the most, as in [0, 10]")
        return scale

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Its score; see `own_metric` for what else it returns."""
        return {self._name: own_metric(self._name, is_share=self.scale is not None)}

    @property
    def _name(self) -> str:
        name = self.function.rpartition(":")[2]
        return self.function if name in _TAKEN else name

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """What the function returns."""
        given = load_function(self.function)(answer.text, list(question.references), dict(question.record))
        named = given if isinstance(given, Mapping) else {self._name: given}
        numbers = {str(name): _number(name, value) for name, value in named.items()}
        if not numbers:
            raise ValueError("it returned no number")
        if taken := [name for name in numbers if name in _TAKEN or name.startswith("num_") or "@" in name]:
            raise ValueError(f"{', '.join(taken)}: this name means something else here; return another one")
        score = self._scaled(numbers.get(self._name, next(iter(numbers.values()))))
        return Verdict({self._name: score, **{name: n for name, n in numbers.items() if name != self._name}})

    def _scaled(self, number: float) -> float:
        if self.scale is None:
            return number
        least, most = self.scale
        if not least <= number <= most:
            raise ValueError(
                f"{number:g} is not on the scale from {least:g} to {most:g}. Say what it can be, as in `score: {{name: "
                f"{self.function}, scale: [0, 10]}}`, or `scale: null` for any number"
            )
        return (number - least) / (most - least)


_TAKEN = ("score", "loss", "token_accuracy", "answer_tokens", "stopped", "unseen")
"""Names of what stands beside the scores of a task."""


def own_metric(name: str, over: str = JUDGED, *, is_share: bool = False) -> Metric:
    """What is known of a number that only the user's function knows."""
    return Metric(name, f"{name} of an answer", "higher", over, is_share)


def load_function(name: str) -> Callable[[str, list[str], dict[str, Any]], Any]:
    """The function; its module is looked for among the installed ones first.

    Raises:
        UserError: there is no such module or function, or it cannot be imported.
    """
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"score: {name}: the module {module_name} cannot be imported ({type(error).__name__}: {error}). It has to "
            f"be installed, or to lie in the working folder."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        where = getattr(module, "__file__", None) or module_name
        raise UserError(f"score: {name}: {where} has no function {function_name}")
    return function  # type: ignore[no-any-return]


def _number(name: object, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}, which is no score")
    return number
