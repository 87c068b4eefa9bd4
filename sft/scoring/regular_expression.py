"""Whether an answer matches a regular expression of Python.

A pattern such as `(a+)+b` may take years. It runs where it can be ended (`sft.scoring.judging`), and costs its example.
"""

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import field_validator

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict


class RegularExpression(Settings):
    """Whether the pattern is found in the answer."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "regex": Metric("pattern", "answers that match the pattern", "higher", JUDGED, is_share=True)
    }
    needs: ClassVar[Need] = "nothing"

    pattern: str
    """As in Python's `re`; `(?i)` at its beginning ignores case, `(?s)` lets the dot match line breaks."""
    whole: bool = False
    """The whole answer has to match, but for white space around it."""

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return pattern

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0."""
        text = answer.text.strip()
        found = re.fullmatch(self.pattern, text) if self.whole else re.search(self.pattern, text)
        return Verdict({"regex": float(found is not None)})
