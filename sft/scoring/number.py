"""Whether the number that an answer comes to is that of a reference; `sft.scoring.written_number` says which it is."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import Field

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, failure
from sft.scoring.written_number import Amount, amount_in


class Number(Settings):
    """Whether the answer comes to the number of a reference: 1,000 is 1000.0 and 1e3; $5 is 5 apples."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "number": Metric("right number", "answers that come to the right number", "higher", JUDGED, is_share=True)
    }

    tolerance: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The largest difference that still counts as equal, as a share of the reference."""

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0."""
        wanted = [amount for reference in question.references if (amount := amount_in(reference))]
        if not wanted:
            return failure("no number in the references")
        given = amount_in(answer.text)
        if given is None:
            return Verdict({"number": 0.0}, "no number in the answer, or none that can be read")
        is_right = any(self._are_equal(given, amount) for amount in wanted)
        return Verdict({"number": float(is_right)}, "" if is_right else f"the answer comes to {_shown(given)}")

    def _are_equal(self, given: Amount, wanted: Amount) -> bool:
        """50 % is both 50 and 0.5, unless both are in percent."""
        values = {given.value}
        if given.is_percent != wanted.is_percent:
            values.add(given.value / 100 if given.is_percent else given.value * 100)
        most = abs(wanted.value) * Fraction(self.tolerance)
        return any(abs(value - wanted.value) <= most for value in values)


def _shown(amount: Amount) -> str:
    value = float(amount.value) if abs(amount.value) < Fraction(10) ** 300 else amount.value
    return f"{value:g}{'%' if amount.is_percent else ''}" if isinstance(value, float) else "a very large number"
