"""An answer as it is written: its tokens one after the other, and the text that can be shown of them.

`generate` calls back after each token; here that becomes an iterator. The model writes in a thread of its own, which
works only while somebody waits for the next token. So several models can write in turns, each with the whole machine.
"""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Self

from sft.answering.writing import Take, Written

_HALF = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for the bytes of a character that is not complete."""


class AnswerStream:
    """Iterates over the tokens of an answer."""

    def __init__(self, write: Callable[[Take], Written]) -> None:
        """`write` writes the whole answer; nothing is computed before the first token is asked for."""
        self.stopped = False
        """At the end: whether the model ended it."""
        self._is_over = False
        self._go = threading.Semaphore(0)
        self._outcomes: SimpleQueue[int | Written | BaseException] = SimpleQueue()
        # Nobody waits for it if the process ends meanwhile.
        self._thread = threading.Thread(target=self._work, args=(write,), name="answer", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        """The next token. Raises what the model raises."""
        if self._is_over:
            raise StopIteration
        self._go.release()
        outcome = self._outcomes.get()
        if isinstance(outcome, int):
            return outcome
        self._is_over = True
        if isinstance(outcome, BaseException):
            raise outcome
        self.stopped = outcome.stopped
        raise StopIteration

    def close(self) -> None:
        """End the answer where it is; waits for the token that is being computed."""
        self._is_over = True
        self._go.release()
        self._thread.join()

    def _take(self, token: int) -> bool:
        self._outcomes.put(token)
        self._go.acquire()
        return self._is_over

    def _work(self, write: Callable[[Take], Written]) -> None:
        self._go.acquire()
        if self._is_over:
            return
        try:
            outcome: Written | BaseException = write(self._take)
        except BaseException as error:  # whatever it is, whoever waits gets it
            outcome = error
        self._outcomes.put(outcome)


class GrowingText:
    """The text of tokens that come one after the other. What was given out is never taken back.

    Some tokens are parts of a character, and white space at the end may be the last: both are held back.
    """

    def __init__(self, words_of: Callable[[Sequence[int]], str]) -> None:
        """`words_of` is the text of whole answers."""
        self._words_of = words_of
        self._ids: list[int] = []
        self._shown = ""

    @property
    def whole(self) -> str:
        """All of it, with what is held back."""
        return self._words_of(self._ids)

    def add(self, token: int) -> str:
        """What can be shown in addition with this token."""
        self._ids.append(token)
        return self._grown(self.whole.rstrip(_HALF).rstrip())

    def rest(self) -> str:
        """At the end: what was held back."""
        return self._grown(self.whole)

    def _grown(self, text: str) -> str:
        # A decoder that changes earlier words shows what it has behind them.
        new, self._shown = text[len(self._shown) :], max(text, self._shown, key=len)
        return new
