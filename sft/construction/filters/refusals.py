"""Drops answers in which a model refuses or talks of itself instead of answering: "As an AI language model, I can't".

Patterns are looked for in the answer alone, so a prompt may ask about such sentences. What an answer quotes is not
looked at either: text between quotation marks, in code, and behind `>`. And where the prompt itself holds the same
words, the task is about them: the answer is kept. So "Classify: 'I'm sorry, but I can't help.'" → "refusal" is kept,
and so is a translation of that sentence out of another language if either quotes it. What is neither quoted nor in the
prompt cannot be told from a refusal, and is dropped.

A refusal is looked for in the first words of an answer, talk of the model itself anywhere.
"""

import re
from typing import ClassVar

from pydantic import field_validator

from sft.construction.filters.draft_parts import DraftParts, answers_of
from sft.construction.filters.filter import Filter, Look, Surroundings
from sft.construction.filters.refusal_words import META_TALK, REFUSALS, may_refuse, may_talk

_FIRST_CHARS = 240
_QUOTED = re.compile(
    r"""^[ \t]*>[^\n]*$ | ```.*?(?:```|\Z) | `[^`\n]*`
      | "[^"\n]{0,400}" | “[^”]{0,400}[”“] | „[^“”]{0,400}[“”] | «[^»]{0,400}» | »[^«]{0,400}«
      | 「[^」]{0,400}」 | 『[^』]{0,400}』 | ‘[^’\n]{0,400}’(?!\w) | '(?<!\w')[^\n]{0,400}?'(?!\w)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_REASONS = {"refuses": "the answer is a refusal", "talks": "the model talks of itself"}


class Refusals(Filter):
    """Refusals and talk of the model itself, in eleven languages."""

    name: ClassVar[str] = "refusals"

    patterns: tuple[str, ...] = ()
    """Regular expressions of your own, looked for anywhere in an answer, whatever case."""

    @field_validator("patterns")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern} is no regular expression: {error}") from None
        return patterns

    def look(self, around: Surroundings) -> Look:
        """By its settings alone."""
        return _RefusalLook(self)


class _RefusalLook(Look):
    def __init__(self, refusals: Refusals) -> None:
        self._own = [re.compile(pattern, re.IGNORECASE) for pattern in refusals.patterns]

    def see(self, parts: DraftParts) -> str | None:
        """Of any answer of the conversation."""
        asked, draft = "", parts.draft
        for answer in answers_of(draft):
            said = unquoted(answer).strip()
            for reason, found in self._found(said):
                asked = asked or _plain("\n".join(str(m.get("content")) for m in draft.messages if _is_asked(m)))
                if found not in asked:
                    return reason
        return None

    def _found(self, said: str) -> list[tuple[str, str]]:
        plain = _plain(said)
        found, first = list[tuple[str, str]](), plain[:_FIRST_CHARS]
        if may_refuse(first):
            found += [(_REASONS["refuses"], match[0]) for match in REFUSALS.finditer(first)]
        if may_talk(plain):
            found += [(_REASONS["talks"], match[0]) for match in META_TALK.finditer(plain)]
        return found + [("a pattern of your own", match[0]) for own in self._own for match in own.finditer(plain)]


def refuses(answer: str, prompt: str) -> bool:
    """Whether an answer is a refusal in words that its prompt has not; quotations do not count."""
    found = REFUSALS.search(_plain(unquoted(answer).strip())[:_FIRST_CHARS])
    return found is not None and found[0] not in _plain(prompt)


def unquoted(text: str) -> str:
    """The text without what it quotes, and without code."""
    return _QUOTED.sub(" ", text)


def _is_asked(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") != "assistant"


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").replace("ʼ", "'").replace("`", "'").lower().split())
