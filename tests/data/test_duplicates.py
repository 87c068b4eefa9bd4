"""Duplicates are found from numbers alone, the first of several stays, and no cut into blocks changes which."""

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.duplicates import (
    NUM_PERMUTATIONS,
    find_duplicates,
    hash_record,
    minhash,
)
from sft.data.near_duplicates import find_near_duplicates
from sft.schema import Conversation, Example, Message, RecordLocation, TokenizedRecord, ToolCall
from tests.data.conversations import conversations

WORDS = ["amber", "basin", "cedar", "delta", "ember", "fjord", "glade", "harbour", "island", "juniper"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join)
WEATHER = {"name": "weather", "parameters": {"city": "text", "day": "text"}}


def conversation(*messages, tools=(), task="t"):
    return Conversation(messages, task, "s", 0, RecordLocation("s", 1), tools)


def turns(*contents):
    return conversation(*(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(contents)))


def prompt_of(content):
    return hash_record(content).prompt


def content_of(content):
    return hash_record(content).content


def tokenized(ids, num_learned=1):
    mask = np.arange(len(ids)) >= len(ids) - num_learned
    return TokenizedRecord(Example(np.array(ids, dtype=np.uint16), mask), "t", "s", 0, RecordLocation("s", 1))


def call(**arguments):
    return Message("assistant", "", tool_calls=(ToolCall("weather", arguments, "id"),))


def test_equal_prompts_have_equal_hashes():
    one = prompt_of(turns("What  is\nit?", "a"))
    assert one == prompt_of(turns("what is it? ", "another answer", "and then?", "b"))
    assert one != prompt_of(turns("What is that?", "a"))
    system = Message("system", "Be brief.")
    assert one == prompt_of(conversation(system, *turns("What is it?", "a").messages))
    assert content_of(turns("q", "a")) != content_of(conversation(system, *turns("q", "a").messages))
    assert one == prompt_of(conversation(*turns("What is it?", "a").messages, tools=(WEATHER,)))
    assert 0 <= one < 2**64


def test_an_answer_that_opens_the_conversation_does_not_make_all_prompts_equal():
    hello = Message("assistant", "Hello!")
    one, other = (prompt_of(conversation(hello, *turns(q, "a").messages)) for q in ("one", "two"))
    assert one != other


def test_the_prompt_of_token_ids_is_what_comes_before_the_first_learned_one():
    one = prompt_of(tokenized([1, 2, 3]))
    assert one == prompt_of(tokenized([1, 2, 9]))
    assert one != prompt_of(tokenized([1, 4, 3]))
    assert prompt_of(tokenized([1, 2], num_learned=0)) != prompt_of(tokenized([1, 3], num_learned=0))
    wide = TokenizedRecord(
        Example(np.array([1, 2, 3]), np.array([False, False, True])), "t", "s", 0, RecordLocation("s", 1)
    )
    assert prompt_of(wide) == one


@given(conversations(), st.sampled_from(["", " ", "\n\t "]))
def test_white_space_case_and_place_do_not_make_a_record_another(one, space):
    other = Conversation(
        tuple(Message(m.role, f"{space}{m.content.swapcase()}{space}") for m in one.messages),
        *("another task", "another source", 7, RecordLocation("elsewhere", 8)),
    )
    lower = Conversation(tuple(Message(m.role, m.content.swapcase().lower()) for m in one.messages), *("t", "s", 0, ""))
    assert content_of(lower) == content_of(other)
    assert prompt_of(lower) == prompt_of(other)


@given(TEXTS, TEXTS)
def test_records_that_differ_in_words_roles_calls_tools_or_what_is_learned_are_different(question, answer):
    user, assistant = Message("user", question), Message("assistant", answer)
    different = [
        conversation(user, assistant),
        conversation(user, Message("assistant", f"{answer} more")),
        conversation(Message("user", f"more {question}"), assistant),
        conversation(Message("system", question), assistant),
        conversation(user, assistant, user, assistant),
        conversation(user, assistant, user, Message("assistant", answer, train=False)),
        conversation(user, assistant, tools=(WEATHER,)),
        conversation(user, call(city=question)),
        conversation(user, call(city=answer, day="today")),
        conversation(Message("user", f"{question} {answer}"), Message("assistant", question)),
    ]
    assert len({content_of(c) for c in different}) == len(different)


def test_the_order_of_arguments_and_the_names_of_calls_do_not_count():
    one = conversation(Message("user", "q"), call(city="Oslo", day="today"), Message("tool", "rain", call_id="id"))
    calls = (ToolCall("weather", {"day": "Today", "city": "oslo"}, "another"),)
    other = conversation(
        *(Message("user", "q"), Message("assistant", "", tool_calls=calls), Message("tool", "rain", call_id="another"))
    )
    assert content_of(one) == content_of(other)
    assert (minhash(one) == minhash(other)).all()


def test_token_ids_are_equal_with_their_mask():
    one = content_of(tokenized([1, 2, 3]))
    assert one == content_of(tokenized([1, 2, 3]))
    assert len({one, content_of(tokenized([1, 2, 4])), content_of(tokenized([1, 2, 3], num_learned=2))}) == 3


@given(st.lists(st.integers(2**64 - 5, 2**64 - 1) | st.integers(0, 4), max_size=40))
def test_the_first_of_equal_records_stays(hashes):
    firsts = find_duplicates(np.array(hashes, dtype=np.uint64))
    assert firsts.tolist() == [hashes.index(h) for h in hashes]


@given(st.lists(TEXTS, min_size=2, max_size=2), st.integers(0, 40))
def test_equal_places_of_two_signatures_estimate_the_jaccard_similarity(texts, num_shared):
    shared = [f"w{i}" for i in range(num_shared)]
    words = [[*shared, *text.split()] for text in texts]
    runs = [{("user", *w)[i : i + 5] for i in range(max(len(w) - 3, 1))} for w in words]
    signatures = [minhash(conversation(Message("user", " ".join(w)))) for w in words]
    jaccard = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    # Five standard deviations of a mean of 128.
    assert np.mean(signatures[0] == signatures[1]) == pytest.approx(jaccard, abs=5 * 0.5 / NUM_PERMUTATIONS**0.5)
    assert signatures[0].shape == (NUM_PERMUTATIONS,)


@given(st.lists(st.text(), min_size=1, max_size=3) | st.just([" ".join(f"w{i}" for i in range(9_000))]))
def test_a_signature_is_that_of_datasketch(texts):
    messages = [Message("user", text) for text in texts]
    words = [zlib.crc32(w.encode("utf-8", "surrogatepass")) for text in texts for w in ("user", *text.lower().split())]
    width = min(5, len(words))
    runs = [words[i : i + width] for i in range(len(words) - width + 1)]
    values = []
    for run in runs:
        value = 0
        for word in run:
            value = (value + word) * 0x9E3779B97F4A7C15 % 2**64
        values.append(value >> 32)
    sketch = MinHash(NUM_PERMUTATIONS, hashfunc=int, scheme="affine32")
    sketch.update_batch(values)
    assert (minhash(conversation(*messages)) == sketch.hashvalues).all()


def test_a_record_of_any_length_has_a_signature():
    long = " ".join(f"w{i}" for i in range(20_000))
    for content in (conversation(Message("user", "")), turns(long, long), tokenized([1, 2]), tokenized([7] * 300)):
        assert minhash(content).dtype == np.uint32
    ids = list(range(100))
    assert np.mean(minhash(tokenized(ids)) == minhash(tokenized([*ids, 5]))) > 0.9
    assert np.mean(minhash(tokenized(ids)) == minhash(tokenized(ids[::-1]))) < 0.1


@st.composite
def signatures(draw):
    """A few families of signatures, whose members differ in some places."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, num_families = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    families = rng.integers(0, 2**32, (num_families, NUM_PERMUTATIONS), dtype=np.uint32)
    made = families[rng.integers(0, num_families, count)]
    changed = rng.random(made.shape) < rng.choice([0.0, 0.03, 0.1, 0.3], (count, 1))
    made[changed] = rng.integers(0, 2**32, changed.sum(), dtype=np.uint32)
    return made, rng.random(count) < 0.9


def agree_in_a_band(one, other, similarity):
    """The bands as the module's text says: as long as 95 % of pairs at this similarity allow, two at least."""
    fitting = [n for n in range(1, 65) if 1 - (1 - similarity**n) ** (NUM_PERMUTATIONS // n) >= 0.95]
    length = max(fitting)
    ends = range(length, NUM_PERMUTATIONS // length * length + 1, length)
    return any((one[end - length : end] == other[end - length : end]).all() for end in ends)


OF_FILES = settings(max_examples=settings.default.max_examples // 3)
"""Each example is written to files and sorted there."""


def find_near(signatures, alive, similarity, piece=7):
    pieces = [signatures[i : i + piece] for i in range(0, len(signatures), piece)]
    with TemporaryDirectory() as folder:
        return find_near_duplicates(lambda: iter(pieces), alive, similarity, Path(folder))


@OF_FILES
@given(signatures(), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_near_duplicates_are_those_of_a_search_one_by_one(made, similarity):
    signatures, alive = made
    expected, kept = list(range(len(signatures))), []
    for i in np.flatnonzero(alive):
        for k in kept:
            alike = np.mean(signatures[i] == signatures[k]) >= similarity
            if alike and agree_in_a_band(signatures[i], signatures[k], similarity):
                expected[i] = k
                break
        else:
            kept.append(i)
    assert find_near(signatures, alive, similarity).tolist() == expected


@OF_FILES
@given(signatures(), st.sampled_from([0.1, 0.5, 0.8, 1.0]))
def test_equal_signatures_are_always_found_and_what_is_found_points_at_one_that_is_kept(made, similarity):
    signatures, alive = made
    firsts = find_near(signatures, alive, similarity)
    others = np.arange(len(firsts))
    kept = alive & (firsts == others)
    assert kept[firsts[alive]].all()
    assert (firsts <= others).all()
    assert (firsts == others)[~alive].all()
    assert len(np.unique(signatures[kept], axis=0)) == kept.sum()


def test_texts_with_a_few_words_changed_are_near_duplicates_and_others_are_not():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(500)]
    texts = [list(rng.choice(words, 120)) for _ in range(20)]
    copies = [[*text[:60], "changed", *text[61:]] for text in texts]
    made = np.stack([minhash(turns(" ".join(text), "yes")) for text in [*texts, *copies]])
    firsts = find_near(made, np.ones(40, dtype=bool), 0.8)
    assert firsts.tolist() == [*range(20), *range(20)]
