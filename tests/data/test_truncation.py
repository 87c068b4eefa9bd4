"""What is truncated fits, keeps its first answers whole, and ends in one that is learned."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.truncation import MIN_PROMPT_CHARS, MIN_PROMPT_PART, truncate
from sft.schema import Conversation, Message, RecordLocation

PIECES = st.sampled_from(["word ", "longer-word ", "ä ", "\n\n", "a", "  "])
TEXTS = st.tuples(PIECES, st.integers(1, 120)).map(lambda pair: pair[0] * pair[1])
ANSWERS = TEXTS.filter(str.strip)
RULES = st.sampled_from(["all_assistant", "last_assistant"])


def conversation(*messages):
    return Conversation(messages, "t", "s", 0, RecordLocation("s", 1))


@st.composite
def conversations(draw):
    """Exchanges of one question and one answer, or with a tool's result between two answers."""
    messages = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 5))):
        messages.append(Message("user", draw(TEXTS)))
        if draw(st.booleans()):
            messages += [Message("assistant", draw(ANSWERS)), Message("tool", draw(TEXTS))]
        messages.append(Message("assistant", draw(ANSWERS), train=draw(st.booleans())))
    messages[-1] = replace(messages[-1], train=True)
    return conversation(*messages)


def count_tokens(content):
    """Words and parts of long ones, and three tokens a turn: neither linear in the characters nor a constant."""
    words = itertools.chain.from_iterable(m.content.split() for m in content.messages)
    return sum(-(-len(word) // 4) for word in words) + 3 * len(content.messages)


class Counter:
    """Counts how often tokens are counted."""

    def __init__(self):
        self.num_calls = 0

    def __call__(self, content):
        self.num_calls += 1
        return count_tokens(content)


def answers(content):
    return [m for m in content.messages if m.role == "assistant"]


def whole_exchanges(content):
    """The leading turns that may stay, the fewest first."""
    ends = [i + 1 for i, m in enumerate(content.messages) if m.role == "assistant" and m.train]
    last = len(content.messages)
    ends = [end for end in ends if end == last or content.messages[end].role == "user"]
    return [replace(content, messages=content.messages[:end]) for end in ends]


def cut(content):
    """The smallest form of a conversation whose turns all stay."""
    kept = []
    for m in content.messages:
        most = max(MIN_PROMPT_CHARS, -(-len(m.content) // MIN_PROMPT_PART))
        too_long = m.role != "assistant" and len(m.content) > most
        kept.append(replace(m, content=m.content.lstrip()[:most]) if too_long else m)
    return replace(content, messages=tuple(kept))


@given(conversations(), RULES, st.integers(1, 900))
def test_what_is_left_fits_keeps_its_first_answers_and_ends_in_a_learned_one(content, train_on, most):
    count = Counter()
    left = truncate(content, train_on, count, most)
    assert count.num_calls <= 10
    smallest = cut(whole_exchanges(content)[0] if train_on == "all_assistant" else content)
    if left is None:
        assert count_tokens(smallest) > most
        return
    assert count_tokens(left) <= most
    assert left == truncate(content, train_on, count_tokens, most)
    assert answers(left) == answers(content)[: len(answers(left))]
    assert left.messages[-1].role == "assistant"
    assert left.messages[-1].train
    if train_on == "last_assistant":
        assert answers(left) == answers(content)
    for before, after in zip(content.messages, left.messages, strict=False):
        assert replace(before, content="") == replace(after, content="")
        assert after == before or before.content.lstrip().startswith(after.content)
        assert len(after.content) >= min(len(before.content.lstrip()), MIN_PROMPT_CHARS, len(before.content))


@given(conversations(), RULES)
def test_a_conversation_that_fits_is_not_touched(content, train_on):
    assert truncate(content, train_on, count_tokens, count_tokens(content)) is content


@given(conversations(), st.integers(1, 900))
def test_turns_are_left_out_before_any_text_is_cut_and_no_more_than_needed(content, most):
    fitting = [part for part in whole_exchanges(content) if count_tokens(part) <= most]
    left = truncate(content, "all_assistant", count_tokens, most)
    if fitting:
        assert left == fitting[-1]
    elif left is not None:
        assert len(left.messages) == len(whole_exchanges(content)[0].messages)


def test_an_exchange_at_the_end_that_is_not_learned_is_the_first_to_go():
    turns = [Message("user", "q " * 20), Message("assistant", "a " * 20)]
    content = conversation(*turns, *turns, turns[0], replace(turns[1], train=False))
    assert truncate(content, "all_assistant", count_tokens, count_tokens(content) - 1) == conversation(*turns, *turns)
    # Where no exchange ends in a learned answer, all turns stay.
    nowhere = conversation(*turns, Message("tool", "t " * 20), replace(turns[1], train=False))
    left = truncate(nowhere, "all_assistant", count_tokens, count_tokens(nowhere) - 1)
    assert left is not None
    assert answers(left) == answers(nowhere)


@given(st.integers(200, 3000), st.integers(1, 100))
def test_the_longest_prompt_text_is_cut_by_no_more_than_needed(num_words, num_answer_words):
    system, answer = Message("system", "Be brief. " * 5), Message("assistant", "yes " * num_answer_words)
    content = conversation(system, Message("user", "word " * num_words), answer)
    most = count_tokens(content) * 2 // 3
    left = truncate(content, "all_assistant", count_tokens, most)
    assert left is not None
    assert left.messages[0] == system
    assert most - 2 * (most // 64) - 2 <= count_tokens(left) <= most


def test_every_long_text_is_cut_where_one_is_not_enough():
    long = "word " * 400
    content = conversation(Message("system", long), Message("user", long), Message("assistant", "yes"))
    left = truncate(content, "all_assistant", count_tokens, 300)
    assert left is not None
    assert 0 < len(left.messages[0].content) == len(left.messages[1].content) < len(long)


@pytest.mark.parametrize("train_on", ["all_assistant", "last_assistant"])
def test_an_answer_that_is_too_long_by_itself_drops_the_conversation(train_on):
    content = conversation(Message("user", "q " * 500), Message("assistant", "word " * 100))
    assert truncate(content, train_on, count_tokens, 100) is None


def test_white_space_before_a_long_text_does_not_stay_in_its_place():
    content = conversation(Message("user", " " * 1000 + "word " * 200), Message("assistant", "yes"))
    left = truncate(content, "all_assistant", count_tokens, 100)
    assert left is not None
    assert left.messages[0].content.startswith("word word")
