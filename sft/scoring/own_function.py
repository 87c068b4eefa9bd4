"""A scorer of the user's own: `module:function`, called as `function(answer, references, record)`.

It returns a number, true or false, or several numbers by name. The module is imported from the working folder only
because the config names it.
"""

import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from sft.errors import UserError
from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict

OWN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


class OwnFunction(Settings):
    """Calls a function of the user's."""

    needs: ClassVar[Need] = "nothing"

    function: Annotated[str, Field(pattern=OWN)]
    """`module:function`."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The one number of a function that returns no names; see `own_metric` for others."""
        name = self.function.rpartition(":")[2]
        return {name: own_metric(name)}

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """What the function returns."""
        given = load_function(self.function)(answer.text, list(question.references), dict(question.record))
        named = given if isinstance(given, Mapping) else {self.function.rpartition(":")[2]: given}
        return Verdict({str(name): _number(name, value) for name, value in named.items()})


def own_metric(name: str) -> Metric:
    """What is known of a number that only the user's function knows."""
    return Metric(name, f"{name} of an answer", "higher", JUDGED)


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
