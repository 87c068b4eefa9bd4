"""chrF2 of a sentence (Popović 2015), by sacrebleu: n-grams of characters, recall weighs twice; for any script."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, best, same_text


class Chrf(Settings):
    """The F-measure of n-grams of up to six characters, averaged over sentences: not the chrF of a corpus."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "chrf": Metric("chrF", "chrF of an answer", "higher", JUDGED, is_share=True, note="Of single sentences.")
    }

    word_order: Annotated[int, Field(ge=0, le=4)] = 0
    """n-grams of up to so many words count too; 2 is chrF++."""

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """Between 0 and 1: a hundredth of what sacrebleu shows."""
        return Verdict({"chrf": best(lambda reference: self._score(answer.text, reference), question.references)})

    def _score(self, answer: str, reference: str) -> float:
        from sacrebleu import sentence_chrf  # noqa: PLC0415  (an optional package)

        if same_text(answer, reference):
            return 1.0
        return float(sentence_chrf(answer, [reference], word_order=self.word_order).score) / 100
