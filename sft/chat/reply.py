"""A reply as it comes: pieces of text, and at the end why it ended."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from sft.thoughts import USUAL, Marks


class Piece(NamedTuple):
    """A part of a reply; it may be empty, as a sign of progress."""

    text: str
    is_thought: bool = False


class Reply(Protocol):
    """The reply of a model to a question."""

    @property
    def text(self) -> str:
        """What it says so far, as it goes into the conversation."""
        ...

    @property
    def note(self) -> str:
        """At the end: why it ended, unless the model ended it after some words."""
        ...

    @property
    def has_failed(self) -> bool:
        """At the end: whether there is no answer."""
        ...

    def pieces(self) -> Iterator[Piece]:
        """What it says, as it comes. Raises nothing that the user could not have caused otherwise."""
        ...

    def end(self) -> None:
        """End it where it is; afterwards nothing goes on for it."""
        ...


class Unanswered:
    """`Reply` to a question that was not asked."""

    text = ""
    has_failed = True

    def __init__(self, reason: str) -> None:
        self.note = reason

    def pieces(self) -> Iterator[Piece]:
        """None."""
        return iter(())

    def end(self) -> None:
        """Nothing goes on."""


class ThoughtMarks:
    """Finds out which part of a growing text is a thought: what stands between the marks, and the marks themselves.

    What the template writes in front of a plain answer is shown as they are: it is no part of the answer.
    """

    def __init__(self, is_open: bool, marks: Marks = USUAL) -> None:
        """`is_open`: whether the prompt has opened a thought."""
        self._text, self._held, self._is_open, self._marks = "", "", is_open, marks
        self._is_settled = is_open

    def split(self, new: str, is_last: bool = False) -> Iterator[Piece]:
        """The pieces of the text that comes in addition. The first characters are held while they may become a mark."""
        start, end, plain, _ = self._marks
        new, self._held = self._held + new, ""
        if not self._is_settled:
            if not is_last and (start.startswith(new) or plain.startswith(new)):
                self._held = new
                return
            self._is_settled, self._is_open = True, new.startswith(start)
            if plain and not self._is_open and new.startswith(plain):
                yield Piece(plain, True)
                new = new.removeprefix(plain)
        if self._is_open:
            before = len(self._text)
            self._text += new
            found = self._text.find(end)
            if found < 0:
                yield Piece(new, True)
                return
            inside = max(0, found + len(end) - before)
            self._is_open = False
            yield Piece(new[:inside], True)
            new = new[inside:]
        yield Piece(new)
