r"""Whether an answer is mathematically equal to a reference, by math-verify: 1/2 is 0.5, \frac{1}{2} and $2^{-1}$.

Its own time limits are off, as they need signals in the main thread: the process that judges has one for everything.
"""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, failure, same_text

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns at every call that its limits are off


class Mathematics(Settings):
    r"""Whether the last expression of the answer, or that in \boxed, equals that of a reference."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "mathematics": Metric("mathematics", "answers that equal the reference", "higher", JUDGED, is_share=True)
    }

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0."""
        if any(same_text(answer.text, reference) for reference in question.references):
            return Verdict({"mathematics": 1.0})
        wanted = [parsed for reference in question.references if (parsed := _parsed(reference))]
        if not wanted:
            return failure("no mathematics in the references")
        given = _parsed(answer.text)
        if not given:
            return Verdict({"mathematics": 0.0}, "no mathematics in the answer")
        return Verdict(
            {"mathematics": max(_are_equal(parsed, given) for parsed in wanted)}, f"the answer is {given[-1]}"
        )


def _parsed(text: str) -> list[Any]:
    """The expressions in a text; if it shows none, the whole text is taken for one."""
    from math_verify import parse  # noqa: PLC0415  (an optional package)

    return list(parse(text, parsing_timeout=None) or parse(f"${text.strip()}$", parsing_timeout=None))


def _are_equal(wanted: list[Any], given: list[Any]) -> float:
    from math_verify import verify  # noqa: PLC0415  (an optional package)

    return float(verify(wanted, given, timeout_seconds=None))
