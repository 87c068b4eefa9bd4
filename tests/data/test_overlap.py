"""Overlap is found as a slow search finds it, however the store is cut, and common phrases do not count."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sft.data.planning import overlap
from sft.data.planning.overlap import MAX_PROMPTS, held_out_runs, overlapping_examples
from sft.data.token_keys import CONTROL, token_keys
from tests.conftest import WORDS
from tests.data.stores import random_hashes, store_of

TASKS = ("chat", "code", "maths")
NUM_IDS = 40
# Two ids say nothing, two say the same, and one begins another passage.
KEYS = random_hashes(NUM_IDS, seed=5)
KEYS[:2] = 0
KEYS[3] = KEYS[2]
KEYS[4] = CONTROL


def store_with(examples, task_ids=None, prompts=None):
    """A store of these lists of token ids; prompts are different where they are not given."""
    prompts = random_hashes(len(examples), 0) if prompts is None else prompts
    store = store_of([len(e) for e in examples], [1] * len(examples), task_ids, prompts, TASKS)
    return replace(store, tokens=np.concatenate(examples).astype(np.uint16), token_keys=KEYS)


@st.composite
def stores(draw):
    """Examples made of a few phrases, so that many have some of them in common; a few prompts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    phrases = [rng.integers(0, NUM_IDS, rng.integers(1, 20)) for _ in range(draw(st.integers(1, 8)))]
    count = draw(st.integers(1, 40))
    examples = [
        np.concatenate([phrases[i] for i in rng.integers(0, len(phrases), rng.integers(1, 4))]) for _ in range(count)
    ]
    store = store_with(examples, rng.integers(0, 3, count), rng.integers(0, 30, count))
    held_out = np.isin(store.prompt_hashes, rng.integers(0, 30, draw(st.integers(0, 8))))
    return store, held_out


def runs_of(store, example_id, length):
    ids = store.tokens[store.offsets[example_id] : store.offsets[example_id + 1]]
    passages = [[]]
    for key in (int(KEYS[i]) for i in ids if KEYS[i]):
        if key == CONTROL:
            passages.append([])
        else:
            passages[-1].append(key)
    return {tuple(keys[i : i + length]) for keys in passages for i in range(len(keys) - length + 1)}


def search(store, held_out, length):
    """Every run that training and held-out examples share: (training examples, held-out examples) of each."""
    training, measured = defaultdict(set), defaultdict(set)
    for i in range(len(store)):
        for run in runs_of(store, i, length):
            (measured if held_out[i] else training)[run].add(i)
    common = {run for run, ids in training.items() if len({store.prompt_hashes[i] for i in ids}) > MAX_PROMPTS}
    return [(training[run], measured[run]) for run in training.keys() & measured.keys() - common]


@given(stores(), st.sampled_from([1, 3, 8, 13]), st.sampled_from([1, 50, 1 << 20]), st.sampled_from([0, 1 << 20]))
def test_the_examples_are_those_of_a_slow_search(made, length, chunk_tokens, max_waiting):
    store, held_out = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_CHUNK_TOKENS", chunk_tokens)
        patch.setattr(overlap, "_MAX_WAITING", max_waiting)
        found = overlapping_examples(store, held_out, length)
    shared = search(store, held_out, length)
    assert set(np.flatnonzero(found.training)) == {i for training, _ in shared for i in training}
    assert set(np.flatnonzero(found.held_out)) == {i for _, measured in shared for i in measured}
    touched = {(i, TASKS[store.task_ids[j]]) for training, measured in shared for i in training for j in measured}
    counts = defaultdict(int)
    for i, task in touched:
        counts[TASKS[store.task_ids[i]], task] += 1
    assert found.counts == counts
    assert [i for i, _ in found.pairs] == np.flatnonzero(found.training).tolist()
    assert all(any(i in training and j in measured for training, measured in shared) for i, j in found.pairs)


@given(stores(), st.sampled_from([1, 3, 8]), st.lists(st.integers(0, NUM_IDS - 1), max_size=30))
def test_a_new_text_is_touched_by_runs_that_held_out_examples_alone_have(made, length, text):
    store, held_out = made
    new = np.concatenate([text, store.tokens[: len(text)]]).astype(np.int64)
    runs = held_out_runs(store, held_out, length)
    measured, training = (
        {run for i in np.flatnonzero(side) for run in runs_of(store, i, length)} for side in (held_out, ~held_out)
    )
    alone = store_with([new])
    touched = bool(runs_of(alone, 0, length) & (measured - training) if len(new) else False)
    assert runs.touch([new]).tolist() == [touched]
    several = [[], new, [], new[: length - 1], new, []]
    assert runs.touch(several).tolist() == [False, touched, False, False, touched, False]


def test_a_run_lies_inside_one_example():
    phrase = np.arange(10, 23)
    store = store_with([phrase, phrase[:6], phrase[6:]])
    assert not overlapping_examples(store, np.array([True, False, False]), 13).training.any()
    whole = store_with([phrase, phrase])
    assert overlapping_examples(whole, np.array([True, False]), 13).training.tolist() == [False, True]


def test_white_space_and_another_spelling_of_a_token_make_no_difference():
    phrase = np.array([2, *range(10, 22)])
    spelled = np.array([0, 3, 1, 0, *range(10, 15), 1, *range(15, 22)])
    found = overlapping_examples(store_with([phrase, spelled]), np.array([True, False]), 13)
    assert found.pairs == ((1, 0),)
    assert found.counts == {("chat", "chat"): 1}


def test_a_run_does_not_cross_a_control_token():
    phrase = np.arange(10, 23)
    store = store_with([phrase, np.insert(phrase, 6, 4), np.append(phrase, 4), np.insert(phrase, 0, [4, 7])])
    found = overlapping_examples(store, np.array([True, False, False, False]), 13)
    assert found.training.tolist() == [False, False, True, True]


def test_what_a_template_writes_around_a_text_is_not_compared(tokenizer_dir):
    """A default system text and a first word that few prompts share make no run."""
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir("default_system")))

    def ids(prompt):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "river"}]
        return np.array(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False))

    words = " amber basin cedar delta ember fjord glade"
    prompts = [f"zephyr{words}", *(f"zephyr {word}" for word in WORDS[8:14]), *WORDS[14:24], f"timber{words}"]
    examples = [ids(prompt) for prompt in prompts]
    store = replace(
        store_of([len(e) for e in examples]), tokens=np.concatenate(examples), token_keys=token_keys(tokenizer)
    )
    found = overlapping_examples(store, np.arange(len(prompts)) == 0, 7)
    assert np.flatnonzero(found.training).tolist() == [len(prompts) - 1]


@pytest.mark.parametrize("num_prompts", [MAX_PROMPTS, MAX_PROMPTS + 1])
def test_a_phrase_that_many_prompts_share_is_not_counted(num_prompts):
    phrase = np.arange(10, 25)
    count = 3 * num_prompts + 1  # three answers to each prompt
    prompts = np.append(np.repeat(np.arange(num_prompts), 3), 10**6)
    held_out = np.arange(count) == count - 1
    found = overlapping_examples(store_with([phrase] * count, prompts=prompts), held_out, 13)
    assert found.training.sum() == (count - 1 if num_prompts <= MAX_PROMPTS else 0)
    assert found.held_out.any() == found.training.any()


@pytest.mark.parametrize("all_held_out", [False, True])
def test_where_one_side_is_empty_there_is_no_overlap(all_held_out):
    store = store_with([np.arange(10, 30)] * 3)
    found = overlapping_examples(store, np.full(3, all_held_out), 13)
    assert not found.training.any()
    assert not found.held_out.any()
    assert (found.counts, found.pairs) == ({}, ())


@pytest.mark.parametrize("template", ["chatml", "think", "gpt2", "inst"])
def test_the_key_of_a_token_is_that_of_its_words(tokenizer_dir, template):
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir(template)))
    keys = token_keys(tokenizer)
    vocab = tokenizer.get_vocab()
    assert len(keys) == max(vocab.values()) + 1
    special = set(tokenizer.all_special_ids) | {
        i for i, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items() if token.special
    }
    said = {}
    for i in vocab.values():
        text = tokenizer.decode([i], clean_up_tokenization_spaces=False)
        if i in special:
            assert keys[i] == CONTROL
        elif not text.strip():
            assert keys[i] == 0
        elif "\ufffd" in text:  # a part of a character
            assert np.count_nonzero(keys == keys[i]) == 1
        else:
            assert said.setdefault(text.strip().lower(), keys[i]) == keys[i] > CONTROL
    assert len(set(said.values())) == len(said)


def test_case_and_white_space_of_a_text_make_no_difference_where_its_tokens_are_words(tokenizer_dir):
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir("chatml")))
    keys = token_keys(tokenizer)
    one, other = (
        [int(k) for k in keys[tokenizer(text, add_special_tokens=False)["input_ids"]] if k > CONTROL]
        for text in ("user amber  basin<|im_end|>\n cedar 数", " user\namber basin cedar\n数")
    )
    assert one == other
