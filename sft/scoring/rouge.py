"""ROUGE-L (Lin 2004), F-measure, by the package rouge-score, with Porter's stemmer.

The package's own tokenizer knows ASCII letters only, and is used where the reference is ASCII: these are the numbers
that others report. Elsewhere words are those of any script, without stemming.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, best, same_text
from sft.scoring.words import words_of


class RougeL(Settings):
    """The longest common subsequence of words, as F-measure of its shares in the answer and in the reference."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "rouge_l": Metric("ROUGE-L", "ROUGE-L of an answer", "higher", JUDGED, is_share=True)
    }

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """Between 0 and 1."""
        return Verdict({"rouge_l": best(lambda reference: rouge_l(answer.text, reference), question.references)})


def rouge_l(answer: str, reference: str) -> float:
    """The F-measure."""
    if same_text(answer, reference):
        return 1.0
    return float(_scorer(reference.isascii()).score(reference, answer)["rougeL"].fmeasure)


class _AnyScript:
    """A tokenizer as rouge-score expects it."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(text)


@cache
def _scorer(is_ascii: bool) -> Any:
    # It imports nltk, which takes a second: only where ROUGE is asked for.
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415

    return RougeScorer(["rougeL"], use_stemmer=True, tokenizer=None if is_ascii else _AnyScript())
