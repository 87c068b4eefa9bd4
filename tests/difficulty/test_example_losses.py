"""The losses that `sft score` compares are those of plain transformers, token by token, in every layout and batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from sft.answering.whole_model import WholeModel
from sft.config import SftConfig
from sft.data.collate import Layout
from sft.difficulty.example_losses import example_losses
from sft.difficulty.loss_table import COLUMNS, Floats
from sft.schema import Example
from sft.world import World
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job

BEGINS = 5
"""Stands for the token that begins texts."""


@pytest.fixture(scope="module")
def models(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The same weights for each layout, and in plain transformers."""
    job = two_stage_job("x", tmp_path_factory.mktemp("losses"), tiny_model_dir, small_records, {"broad": 1, "words": 1})
    found: dict[str, Any] = {"plain": AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)}
    for packing in ("packed", "one_example"):
        config = SftConfig.model_validate({**job, "train": {**job["train"], "packing": packing}})
        found[packing] = WholeModel(config, str(tiny_model_dir), World())
    return found


def examples() -> list[Example]:
    """Of one answer and of two, with and without the token that begins texts, down to a single learned token."""
    rng = np.random.default_rng(0)
    made = []
    for length, learned in ((12, [7, 8, 9]), (30, [4, 5, 20, 21, 22]), (3, [2]), (9, [1]), (40, list(range(30, 40)))):
        for first in (BEGINS, 11):
            ids = rng.integers(20, 60, length)
            ids[0] = first
            made.append(Example(ids, np.isin(np.arange(length), learned)))
    return made


def by_hand(model: Any, example: Example) -> Floats:
    """Each loss from logits of a text of its own."""

    def nll(ids: list[int]) -> list[float]:
        logits = model(torch.tensor([ids])).logits[0, :-1]
        return [0.0, *cross_entropy(logits, torch.tensor(ids[1:]), reduction="none").tolist()]

    ids = example.input_ids.tolist()
    places = np.flatnonzero(example.loss_mask).tolist()
    behind, begins = nll(ids), ids[0] == BEGINS
    learned = [ids[place] for place in places]
    text = [BEGINS, *learned] if begins else learned
    compared = places if begins else places[1:]
    alone = sum(nll(text)[1:]) if len(text) > 1 else 0.0
    sums = [sum(behind[place] for place in of) for of in (places, compared)]
    return np.array([sums[0], len(places), sums[1], alone, len(compared)])


@pytest.mark.parametrize("layout", ["packed", "one_example"])
@pytest.mark.parametrize("max_slots", [1, 64, 4096])
def test_they_are_those_of_plain_transformers(models: dict[str, Any], layout: Layout, max_slots: int) -> None:
    found = example_losses(models[layout], examples(), BEGINS, layout, max_slots)
    wanted = np.stack([by_hand(models["plain"], example) for example in examples()])
    assert found.shape == (10, len(COLUMNS))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_where_no_token_begins_texts_the_first_of_an_answer_is_not_compared(models: dict[str, Any]) -> None:
    found = example_losses(models["packed"], examples(), None, "packed", 64)
    num, compared = found[:, COLUMNS.index("num_tokens")], found[:, COLUMNS.index("num_compared")]
    np.testing.assert_array_equal(compared, num - 1)
    assert np.isfinite(found).all()
