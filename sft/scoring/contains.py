"""Whether an answer contains a reference, as whole words and numbers next to each other."""

from collections.abc import Mapping
from typing import ClassVar

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, best
from sft.scoring.words import places, words_and_numbers_of


class Contains(Settings):
    """Whether the answer contains a reference: its words in their order, whatever case and punctuation."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "contains": Metric("contains", "answers that contain the reference", "higher", JUDGED, is_share=True)
    }

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0."""
        told = words_and_numbers_of(answer.text)

        def is_in(reference: str) -> bool:
            wanted = words_and_numbers_of(reference)
            return bool(places(wanted, told)) if wanted else reference.strip() in answer.text

        return Verdict({"contains": best(is_in, question.references)})
