"""Which part of what a model wrote is its answer: what stands behind the thought that it begins with.

    prompt, words ──whole_text──▶ <think>↵a thought↵</think>↵↵the answer ──answer_in──▶ the answer

Only a text that begins with the mark has a thought. The same words further on are part of an answer: code and
explanations hold them, too.
"""

import re
from typing import NamedTuple

from sft.schema import THOUGHT_END, THOUGHT_START

_START, _END = THOUGHT_START.strip(), THOUGHT_END.strip()
_END_ALONE = re.compile(rf"^[ \t]*{_END}[ \t]*$", re.MULTILINE)


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


def without_thought(text: str) -> str:
    """What stands behind the thought of a reference; the whole text if nothing does."""
    return answer_in(text).answer or text


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends with the mark that begins a thought."""
    return prompt.rstrip().endswith(_START)


def whole_text(prompt: str, text: str, thinks: bool) -> str:
    """What was written behind a prompt, with the mark of the thought that the prompt has opened.

    A model that learned answers without thoughts answers at once even there: it ends no thought.

    Args:
        prompt: what the model went on from.
        text: what it wrote.
        thinks: whether the answer that it learns there has a thought.
    """
    return THOUGHT_START + text if opens_thought(prompt) and (thinks or _END in text) else text


def served_text(text: str) -> str:
    """What a server gave, with the mark that its template may have written: then only the other mark is there."""
    end = _END_ALONE.search(text)
    return THOUGHT_START + text if end and _START not in text[: end.start()] else text
