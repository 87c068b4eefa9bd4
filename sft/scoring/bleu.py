"""BLEU of a sentence (Papineni et al. 2002), by sacrebleu (Post 2018), smoothed exponentially, of effective order.

A sentence without a common 4-gram would have a BLEU of 0: n-grams that are in no reference count as a half, a quarter,
an eighth …, and orders that a short sentence does not reach are left out. Its mean is not the BLEU of the corpus.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, best, same_text


class Bleu(Settings):
    """The precision of n-grams of up to four words, with a penalty for short answers, averaged over sentences."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "bleu": Metric("BLEU", "BLEU of an answer", "higher", JUDGED, is_share=True, note="Of single sentences.")
    }

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """How sacrebleu finds words: `13a` for languages with spaces, `zh` for Chinese, `char` for others without."""

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """Between 0 and 1: a hundredth of what sacrebleu shows."""
        return Verdict({"bleu": best(lambda reference: self._score(answer.text, reference), question.references)})

    def _score(self, answer: str, reference: str) -> float:
        from sacrebleu import sentence_bleu  # noqa: PLC0415  (an optional package)

        if same_text(answer, reference):
            return 1.0
        return float(sentence_bleu(answer, [reference], tokenize=self.tokenize).score) / 100
