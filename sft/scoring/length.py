"""How long answers are, and how many of them the model ended itself: measured beside every score."""

from collections.abc import Mapping
from typing import ClassVar

from sft.scoring.metric import Metric
from sft.scoring.scorer import ANSWERED, Answer, Need, Question, Settings, Verdict


class Length(Settings):
    """Tokens of the answer, and whether it stopped before the most tokens allowed."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "answer_tokens": Metric("answer length", "tokens of an answer", "neither", ANSWERED),
        "stopped": Metric("stopped", "answers that the model ended itself", "higher", ANSWERED, is_share=True),
    }
    needs: ClassVar[Need] = "nothing"

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """The number of tokens, and 1 or 0."""
        note = "" if answer.stopped else f"cut after {answer.num_tokens:,} tokens"
        return Verdict({"answer_tokens": answer.num_tokens, "stopped": float(answer.stopped)}, note)
