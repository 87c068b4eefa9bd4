"""Exact match, normalised as in SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250, its evaluation script).

Lower case, without ASCII punctuation, without the articles a, an, the, and with single spaces. Other than there, curly
quotes are punctuation, too, and texts are in Unicode's form NFC: a letter with its accent is one, however composed.
"""

import re
import string
from collections.abc import Mapping
from typing import ClassVar
from unicodedata import normalize

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, best, same_text

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation + "\u2018\u2019\u201c\u201d")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class ExactMatch(Settings):
    """Whether the whole answer is a reference."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "exact_match": Metric("exact match", "answers that are the reference", "higher", JUDGED, is_share=True)
    }

    normalize: bool = True
    """Compare without case, punctuation and articles. False: as they are, but for white space around them."""

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0."""
        is_right = self._is_same if self.normalize else same_text
        return Verdict({"exact_match": best(lambda reference: is_right(answer.text, reference), question.references)})

    def _is_same(self, answer: str, reference: str) -> bool:
        wanted = normalized(reference)
        # Of "+" and "the", nothing would be left to compare.
        return normalized(answer) == wanted if wanted else same_text(answer, reference)


def normalized(text: str) -> str:
    """The text in SQuAD's normal form."""
    return " ".join(_ARTICLES.sub(" ", normalize("NFC", text).lower().translate(_NO_PUNCTUATION)).split())
