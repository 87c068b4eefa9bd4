"""Which part of what a model wrote is its answer: what stands behind the thought that it begins with.

    prompt, words ──whole_text──▶ <think>↵a thought↵</think>↵↵the answer ──answer_in──▶ the answer

Templates mark thoughts differently (`Marks`). Whatever the marks, a text has its thought in one form from here on: that
of `<think>`. Only a text that begins with the mark has a thought. The same words further on are part of an answer: code
and explanations hold them, too.
"""

import re
from typing import NamedTuple

from sft.schema import THOUGHT_END, THOUGHT_START

_START, _END = THOUGHT_START.strip(), THOUGHT_END.strip()
_END_ALONE = re.compile(rf"^[ \t]*{_END}[ \t]*$", re.MULTILINE)


class Marks(NamedTuple):
    """What a chat template writes around thoughts, without white space at its ends.

    Example:
        `<|channel|>analysis<|message|>`, `<|end|><|start|>assistant<|channel|>final<|message|>`, and
        `<|channel|>final<|message|>` in front of an answer without a thought.
    """

    start: str = _START
    end: str = _END
    plain: str = ""
    """What the model writes in front of an answer without a thought: mostly nothing."""
    end_at_call: str = ""
    """What ends a thought in front of a call, if it is something else: `<|end|><|start|>assistant`."""

    def ends_in(self, text: str) -> str:
        """The mark that ends the thought of a text; that of answers in words if there is none.

        It counts first: of two thoughts, one may end as in front of a call.
        """
        is_at_call = self.end not in text and self.end_at_call and self.end_at_call in text
        return self.end_at_call if is_at_call else self.end


USUAL = Marks()


class Said(NamedTuple):
    """The answer in a text."""

    answer: str
    """Without white space around it, if there is a thought."""
    why_empty: str = ""
    """What became of the answer, if there is a thought and nothing behind it."""


def answer_in(text: str) -> Said:
    """What stands behind the thought of a text; the whole text if it begins with none."""
    if not text.lstrip().startswith(_START):
        return Said(text)
    _, end, answer = text.partition(_END)
    answer = answer.strip()
    return Said(answer, "" if answer else "nothing behind the thought" if end else "the thought was cut")


def without_thought(text: str, marks: Marks = USUAL) -> str:
    """What stands behind the thought of a reference; the whole text if nothing does.

    What the template writes in front of a plain answer is not in records: such words are their own.
    """
    return answer_in(in_usual_form(text, marks._replace(plain=""))).answer or text


def in_usual_form(text: str, marks: Marks) -> str:
    """The text with its thought between `<think>` and `</think>`, and without what stands in front of a plain answer.

    For every thought and answer without the marks, `answer_in` finds the answer in what this returns.
    """
    words = text.lstrip()
    if marks[:2] != USUAL[:2] and words.startswith(marks.start):
        words = words.removeprefix(marks.start)
        thought, end, answer = words.partition(marks.ends_in(words))
        if answer.strip() and not thought.strip():
            return answer.strip()
        # Between other marks, these words may be part of a thought.
        thought = THOUGHT_START + thought.strip().replace(_END, "</ think>")
        return thought + THOUGHT_END + answer.strip() if end else thought
    if marks.plain and words.startswith(marks.plain):
        return words.removeprefix(marks.plain).lstrip()
    return text


def opens_thought(prompt: str, marks: Marks = USUAL) -> bool:
    """Whether a prompt ends with the mark that begins a thought."""
    return prompt.rstrip().endswith(marks.start)


def whole_text(prompt: str, text: str, thinks: bool, marks: Marks = USUAL) -> str:
    """What was written behind a prompt, in the usual form, with the mark of the thought that the prompt has opened.

    A model that learned answers without thoughts answers at once even there: it ends no thought.

    Args:
        prompt: what the model went on from.
        text: what it wrote.
        thinks: whether the answer that it learns there has a thought.
        marks: those of the template.
    """
    is_inside = opens_thought(prompt, marks) and (thinks or marks.ends_in(text) in text)
    return in_usual_form(f"{marks.start}\n{text}" if is_inside else text, marks)


def served_text(text: str) -> str:
    """What a server gave, with the mark that its template may have written: then only the other mark is there."""
    end = _END_ALONE.search(text)
    return THOUGHT_START + text if end and _START not in text[: end.start()] else text
