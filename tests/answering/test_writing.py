"""Answers of batches are those of plain transformers, one prompt at a time."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
)

from sft.answering.decoding import SAFE, Decoding, try_decoding
from sft.answering.reading import padded, roomy_cache
from sft.answering.rounds import BatchSize, Lengths, rounds_of
from sft.answering.shared_prompts import num_saved, shared_log_likelihoods
from sft.answering.writing import Prompted, Style, answering, write_answers
from sft.questions.question import Option

CPU = torch.device("cpu")
PROMPTS = [
    Prompted(f"q{i}", tuple((7 * i + 11 * j) % 200 + 20 for j in range(length)), 4 + 5 * (i % 4))
    for i, length in enumerate([3, 17, 8, 8, 30, 1, 12])
]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    # The largest logit of random weights hardly depends on the prompt.
    with torch.no_grad():
        for parameter in loaded.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return loaded


def stops_of(model: Any) -> tuple[int, ...]:
    """A token that some of the answers hold, so that some stop early and others do not."""
    with answering(model, "sdpa"):
        free = write_answers(model, PROMPTS, Style((0,)), CPU)
    return (free[1].ids[2], free[3].ids[5])


def test_a_batch_gives_what_transformers_gives_each_prompt_alone(model: Any) -> None:
    stops = stops_of(model)
    with answering(model, "sdpa"):
        found = write_answers(model, PROMPTS, Style(stops), CPU)
    for prompt, written in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt.prompt_ids])
        settings = GenerationConfig(
            max_new_tokens=prompt.max_new_tokens, do_sample=False, eos_token_id=list(stops), pad_token_id=0
        )
        plain = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)[0]
        assert list(written.ids) == plain[len(prompt.prompt_ids) :].tolist()
        assert written.stopped == (written.ids[-1] in stops)
    assert {written.stopped for written in found} == {True, False}
    assert len({written.ids for written in found}) > 3


@pytest.mark.parametrize("group_tokens", [1, 20, 40, 10_000])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_prompts_may_be_read_in_any_groups(model: Any, group_tokens: int, attention: str) -> None:
    prompts = [prompt.prompt_ids for prompt in PROMPTS]
    ids, mask = padded(prompts)
    settings = GenerationConfig(max_new_tokens=9, do_sample=False, eos_token_id=None, pad_token_id=0)
    with answering(model, attention):
        cached = roomy_cache(model, prompts, 9, CPU, group_tokens)
        assert cached["past_key_values"].get_seq_length() == (0 if group_tokens == 10_000 else 29)
        found = model.generate(ids, attention_mask=mask, generation_config=settings, **cached)
        right = model.generate(ids, attention_mask=mask, generation_config=settings)
    assert found.tolist() == right.tolist()


def test_without_a_cache_the_answers_are_the_same(model: Any) -> None:
    with answering(model, "eager"):
        cached, plain = (write_answers(model, PROMPTS, Style((0,)), CPU, caches) for caches in ("grown", "none"))
    assert cached == plain


def test_what_is_drawn_for_a_prompt_does_not_depend_on_its_batch(model: Any) -> None:
    style = Style((0,), temperature=0.8, top_p=0.9, seed=5)
    with answering(model, "sdpa"):
        together = write_answers(model, PROMPTS, style, CPU)
        alone = [write_answers(model, [prompt], style, CPU)[0] for prompt in reversed(PROMPTS)][::-1]
        other = write_answers(model, PROMPTS, Style((0,), temperature=0.8, top_p=0.9, seed=6), CPU)
        greedy = write_answers(model, PROMPTS, Style((0,)), CPU)
    assert together == alone
    assert together != other
    assert together != greedy


def test_draws_follow_the_models_distribution(model: Any) -> None:
    prompt = (5, 6, 7)
    rows = [Prompted(f"draw {i}", prompt, 1) for i in range(2000)]
    with answering(model, "sdpa"):
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].float()
        drawn = [written.ids[0] for written in write_answers(model, rows, Style((0,), temperature=2.0), CPU)]
    expected = (logits / 2.0).softmax(-1)
    counted = torch.bincount(torch.tensor(drawn), minlength=len(expected)) / len(rows)
    # Few groups of tokens, so that chance stays below a twentieth.
    groups = expected.argsort().chunk(8)
    for group in groups:
        assert abs(float(counted[group].sum() - expected[group].sum())) < 0.05


def test_the_models_own_generation_config_changes_nothing_and_comes_back(model: Any) -> None:
    with answering(model, "sdpa"):
        before = write_answers(model, PROMPTS, Style((0,)), CPU)
    own = GenerationConfig(repetition_penalty=5.0, suppress_tokens=[before[0].ids[0]], do_sample=True, temperature=9.0)
    changed = copy.copy(model)
    changed.generation_config = own
    with answering(changed, "sdpa"):
        assert write_answers(changed, PROMPTS, Style((0,)), CPU) == before
    assert changed.generation_config is own


def test_how_a_class_decodes_is_tried(model: Any) -> None:
    assert try_decoding(model.config) == Decoding("sdpa", caches="roomy", pads=True, shares=True)
    assert try_decoding(Gemma2Config()) == Decoding("eager", caches="roomy", pads=True, shares=True), "it caps scores"
    assert try_decoding(BambaConfig()) == Decoding("sdpa", caches="none", pads=True)
    assert try_decoding(ViTConfig()) == SAFE, "it does not write"


def test_options_behind_a_shared_prompt_have_the_likelihoods_that_they_have_alone(model: Any) -> None:
    draw = random.Random(0)
    questions = []
    for num_options, length, common in ((2, 5, 0), (4, 30, 2), (1, 9, 0), (3, 1, 0), (2, 17, 1)):
        prompt = [draw.randrange(20, 500) for _ in range(length)]
        first = [draw.randrange(20, 500) for _ in range(common)]
        rests = [[draw.randrange(20, 500) for _ in range(draw.randrange(1, 6))] for _ in range(num_options)]
        questions.append([Option((*prompt, *first, *rest), length) for rest in rests])
    with answering(model, "sdpa"):
        found = shared_log_likelihoods(model, questions, CPU)
    for options, own in zip(questions, found, strict=True):
        assert num_saved(options) >= 0
        for option, value in zip(options, own, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([option.ids])).logits[0].log_softmax(-1)
            right = sum(float(logits[i - 1, option.ids[i]]) for i in range(option.start, len(option.ids)))
            assert value == pytest.approx(right, rel=1e-4)


lengths = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 100)), max_size=60)


@given(lengths, st.integers(1, 4), st.integers(1, 8), st.integers(100, 2000), st.booleans())
def test_rounds_hold_each_question_once_within_the_size(
    pairs: list[tuple[int, int]], num_ranks: int, rows: int, slots: int, pads: bool
) -> None:
    given_lengths = [Lengths(*pair) for pair in pairs]
    rounds = rounds_of(given_lengths, num_ranks, BatchSize(rows, slots), seed=3, pads=pads)
    batches = [batch for together in rounds for batch in together]
    assert sorted(i for batch in batches for i in batch) == list(range(len(pairs)))
    assert all(len(together) == num_ranks for together in rounds)
    for batch in batches:
        widths = [given_lengths[i] for i in batch]
        if len(batch) > 1:
            assert len(batch) <= rows
            assert len(batch) * (max(w.prompt for w in widths) + max(w.answer for w in widths)) <= slots
            assert pads or len({w.prompt for w in widths}) == 1
            assert max(w.prompt for w in widths) + max(w.answer for w in widths) <= max(map(sum, given_lengths))


@pytest.mark.parametrize(
    ("count", "num_ranks", "sizes"), [(40, 4, {10}), (33, 1, {16, 17}), (5, 8, {1, 0}), (64, 2, {32})]
)
def test_ranks_share_questions_evenly(count: int, num_ranks: int, sizes: set[int]) -> None:
    rounds = rounds_of([Lengths(9 + i % 7, 5) for i in range(count)], num_ranks, BatchSize(), seed=1)
    assert {len(batch) for together in rounds for batch in together} == sizes


def test_no_row_of_a_batch_is_written_past_the_end_of_the_models_window() -> None:
    """Absolute positions are a table: what reads behind its end is an error, on a GPU one that ends the process."""
    sizes = {"n_positions": 24, "vocab_size": 240, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    ids = tuple(range(30, 50))
    questions = [Prompted("long", ids, 4), Prompted("short", ids[:3], 21)]
    rounds = rounds_of([Lengths(len(q.prompt_ids), q.max_new_tokens) for q in questions], 1, BatchSize(), seed=1)
    with answering(model, "sdpa"):
        for [batch] in rounds:
            written = write_answers(model, [questions[i] for i in batch], Style((239,)), CPU)
            assert all(len(one.ids) <= questions[i].max_new_tokens for i, one in zip(batch, written, strict=True))
        options = [[Option((*ids, 60, 61), 20), Option((*ids, 62), 20)], [Option((*ids[:3], *ids), 3)] * 2]
        assert len(shared_log_likelihoods(model, options, CPU)) == 2
