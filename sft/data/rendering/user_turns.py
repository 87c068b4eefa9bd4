"""What a chat template writes around the words of a user, found by rendering probes.

    <|im_start|>user⏎ WORDS <|im_end|>⏎…       a model that goes on behind the header writes what a user would ask

So instructions come out of a model that was tuned on instructions (Magpie, Xu et al. 2024, arXiv 2406.08464).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sft.data.rendering.adaptation import RenderTemplate
from sft.data.rendering.turn_bounds import MARKS
from sft.errors import RecordError
from sft.schema import Message

_WORDS = tuple(f"{chr(mark)}probe{chr(mark)}" for mark in MARKS[:2])


class UserTurn(NamedTuple):
    """What stands around the words of a user."""

    header: str
    """All text before them, with that of the turns before."""
    end: str
    """The control token that ends them."""


def find_user_turn(
    render_template: RenderTemplate, before: Sequence[Message], control: re.Pattern[str], bos: str
) -> UserTurn:
    """What the template writes around the words of a user's turn.

    Args:
        render_template: the template.
        before: the turns before it.
        control: finds control tokens in a text.
        bos: the token that begins every text; empty: none.

    Raises:
        RecordError: the template refuses such turns, or does not mark where a user's words begin and end.
    """
    found = {_around(render_template((*before, Message("user", words))), words, control) for words in _WORDS}
    if len(found) > 1:
        raise RecordError("the chat template writes other text around other words of a user")
    turn = found.pop()
    own = turn.header.removeprefix(bos).strip()
    if not own or own == _answer_header(render_template, before, turn.end):
        raise RecordError("the chat template does not mark where a user's words begin")
    return turn


def _around(text: str, words: str, control: re.Pattern[str]) -> UserTurn:
    header, _, behind = text.partition(words)
    if text.count(words) != 1:
        raise RecordError("the chat template does not write a user's words once, as they are")
    end = control.match(behind.lstrip())
    if end is None:
        raise RecordError("the chat template does not end a user's words with a control token")
    # A space in front of the words belongs to the first of their tokens.
    return UserTurn(header.rstrip(" "), end.group())


def _answer_header(render_template: RenderTemplate, before: Sequence[Message], end: str) -> str:
    user, answer = Message("user", _WORDS[0]), Message("assistant", _WORDS[1])
    behind = render_template((*before, user, answer)).partition(_WORDS[0])[2].lstrip()
    return behind.removeprefix(end).partition(_WORDS[1])[0].strip()
