"""Shortens a conversation that is too long: first whole turns at its end go, then prompt text, never answers.

    fits as it is                     unchanged
    its first exchanges fit           the most of them that fit, if the last of them ends in a learned answer
    not even the first of those fits  that one, with its longest prompt texts cut at their ends
    still too long                    None

If only the last answer is learned, no turns are left out. The text is cut, then rendered and tokenized again, so a
truncated example obeys the same mask as any other.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from sft.schema import Conversation, Message

MIN_PROMPT_CHARS = 32
"""Prompt texts of at most this length are never cut."""
MIN_PROMPT_PART = 8
"""Each prompt text keeps at least this fraction, one part in 8: with less of it, the answer would be a guess."""

_NUM_TRIES = 6
CountTokens = Callable[[Conversation], int]


def truncate(
    conversation: Conversation,
    train_on: Literal["all_assistant", "last_assistant"],
    count_tokens: CountTokens,
    max_len_tokens: int,
) -> Conversation | None:
    """The conversation, shortened if it is too long; None where no allowed form is short enough.

    Its answers are the first ones of the original, unchanged, and its last turn is learned.

    Args:
        conversation: ends in an answer.
        train_on: which answers are learned.
        count_tokens: renders and tokenizes; called about ten times at most.
        max_len_tokens: how many tokens fit.
    """
    num_tokens = count_tokens(conversation)
    if num_tokens <= max_len_tokens:
        return conversation
    ends = _learned_ends(conversation.messages) if train_on == "all_assistant" else []
    if ends and ends[0] < len(conversation.messages):
        shortest = _first_turns(conversation, ends[0])
        num_tokens = count_tokens(shortest)
        if num_tokens <= max_len_tokens:
            return _leave_out_turns(conversation, ends, count_tokens, max_len_tokens)
        conversation = shortest
    return _cut_prompt(conversation, num_tokens, count_tokens, max_len_tokens)


def _learned_ends(messages: tuple[Message, ...]) -> list[int]:
    """The numbers of leading turns that are whole exchanges and end in a learned answer."""
    nexts = [m.role for m in messages[1:]] + ["user"]
    return [
        i + 1
        for i, (message, following) in enumerate(zip(messages, nexts, strict=True))
        if message.role == "assistant" and message.train and following == "user"
    ]


def _leave_out_turns(
    conversation: Conversation, ends: list[int], count_tokens: CountTokens, max_len_tokens: int
) -> Conversation:
    """The most exchanges that fit; the whole conversation does not fit, the first of `ends` does."""
    fits, too_many = 0, len(ends) - (ends[-1] == len(conversation.messages))
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if count_tokens(_first_turns(conversation, ends[middle])) <= max_len_tokens:
            fits = middle
        else:
            too_many = middle
    return _first_turns(conversation, ends[fits])


def _first_turns(conversation: Conversation, count: int) -> Conversation:
    return replace(conversation, messages=conversation.messages[:count])


def _cut_prompt(
    conversation: Conversation, num_tokens: int, count_tokens: CountTokens, max_len_tokens: int
) -> Conversation | None:
    """Every prompt text cut to the same number of characters: the largest that fits, to within a few tokens.

    So the longest is cut first, and the next one only once the longest has come down to its length.
    """
    prompt_lens = [len(message.content) for message in conversation.messages if message.role != "assistant"]
    fits, too_long = MIN_PROMPT_CHARS, max(prompt_lens, default=0)
    best = _cut_to(conversation, fits)
    num_fitting, num_too_long = count_tokens(best), num_tokens
    if num_fitting > max_len_tokens:
        return None
    slack = max_len_tokens // 64
    for _ in range(_NUM_TRIES):
        if num_fitting >= max_len_tokens - 2 * slack or too_long - fits <= 1:
            break
        share = (max_len_tokens - slack - num_fitting) / (num_too_long - num_fitting)
        middle = min(max(fits + int(share * (too_long - fits)), fits + 1), too_long - 1)
        shorter = _cut_to(conversation, middle)
        num_tokens = count_tokens(shorter)
        if num_tokens <= max_len_tokens:
            best, fits, num_fitting = shorter, middle, num_tokens
        else:
            too_long, num_too_long = middle, num_tokens
    return best


def _cut_to(conversation: Conversation, num_chars: int) -> Conversation:
    return replace(conversation, messages=tuple(_cut(message, num_chars) for message in conversation.messages))


def _cut(message: Message, num_chars: int) -> Message:
    most = max(num_chars, -(-len(message.content) // MIN_PROMPT_PART))
    if message.role == "assistant" or len(message.content) <= most:
        return message
    # Keep text from the first word on: a text that begins with much white space must not become empty.
    return replace(message, content=message.content.lstrip()[:most])
