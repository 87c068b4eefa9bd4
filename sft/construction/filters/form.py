"""Drops what has not the form of a question and its answer: empty, too short or long, repeated, unfinished."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from sft.construction.filters.draft_parts import (
    UNREADABLE,
    DraftParts,
    answer_of,
    answers_of,
    has_calls,
    prompt_of,
)
from sft.construction.filters.filter import Filter, Look, Surroundings
from sft.data.markers import strip_markers
from sft.errors import RecordError
from sft.scoring.words import words_of

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_OPEN_END = re.compile(r"(?:[,;:،؛、，；：(\[{]|\s[-–—]|[^.…。]\b(?:and|or|the|of|to|with|because))\Z")
"""An answer that ends so goes on. Not every answer ends with a full stop: a label, a number and a list do not."""
_NGRAM = 5


class Form(Filter):
    """Lengths, empty parts, repetition and unfinished answers."""

    name: ClassVar[str] = "form"

    min_words: Annotated[int, Field(ge=0)] = 3
    """The fewest words of a prompt. An answer may be one word: a label is."""
    max_words: PositiveInt = 4096
    """The most words of a prompt, and of an answer."""
    min_answer_words: Annotated[int, Field(ge=0)] = 0
    """The fewest words of an answer."""
    max_repeats: PositiveInt = 3
    """The most times that a line of an answer with three words or more may stand there."""
    max_repeated_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """The largest share of the runs of five words of an answer that stood there before."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if max(self.min_words, self.min_answer_words) > self.max_words:
            raise ValueError(f"min_words and min_answer_words are at most max_words, which is {self.max_words}")
        return self

    def look(self, around: Surroundings) -> Look:
        """By its settings, and the control tokens of the tokenizer."""
        return _FormLook(self, around.special_tokens)


class _FormLook(Look):
    def __init__(self, form: Form, special_tokens: frozenset[str]) -> None:
        self._form, self._special_tokens = form, special_tokens

    def see(self, parts: DraftParts) -> str | None:
        """The first of the rules that it breaks."""
        draft = parts.draft
        prompt, answer, calls = prompt_of(draft), answer_of(draft), has_calls(draft)
        if not prompt.strip():
            return "the prompt is empty"
        if not all(text.strip() for text in answers_of(draft)) or not (answer.strip() or calls):
            return "the answer is empty"
        if parts.conversation is None:
            return UNREADABLE
        try:
            strip_markers(parts.conversation, self._special_tokens)
        except RecordError:
            return "training would refuse it: it has control tokens of the model's tokenizer"
        return self._by_words(prompt, answer, calls)

    def _by_words(self, prompt: str, answer: str, calls: bool) -> str | None:
        form, asked, answered = self._form, words_of(prompt), words_of(answer)
        if len(asked) < form.min_words:
            return f"the prompt has fewer than {form.min_words} words"
        if len(asked) > form.max_words:
            return f"the prompt has more than {form.max_words} words"
        if calls:
            return None
        if len(answered) < form.min_answer_words:
            return f"the answer has fewer than {form.min_answer_words} words"
        if len(answered) > form.max_words:
            return f"the answer has more than {form.max_words} words"
        if asked == answered and " ".join(prompt.split()).lower() == " ".join(answer.split()).lower():
            return "the answer is the prompt"
        if is_unfinished(answer):
            return "the answer is not finished"
        if most_repeats(answer.splitlines()) > form.max_repeats:
            return "the answer repeats a line"
        if repeated_share(answered) > form.max_repeated_share:
            return "the answer repeats itself"
        return None


def is_unfinished(answer: str) -> bool:
    """Whether it ends in the middle: an open fence of code, or a word or sign that something must follow."""
    if ("```" in answer or "~~~" in answer) and len(_FENCE.findall(answer)) % 2:
        return True
    text = answer.rstrip()
    return len(text.split()) > 3 and _OPEN_END.search(text[-40:]) is not None


def most_repeats(lines: Sequence[str]) -> int:
    """How often a line with three words or more stands there, of the one that does most often."""
    times = Counter(map(str.strip, lines))
    return max((num for line, num in times.items() if len(line.split()) >= 3), default=0)


def repeated_share(words: Sequence[str]) -> float:
    """The share of the runs of five words that stood there before; 0 for a text of less than four runs."""
    num = len(words) - _NGRAM + 1
    return 1 - len({*zip(*(words[i:] for i in range(_NGRAM)), strict=False)}) / num if num >= 4 else 0.0
