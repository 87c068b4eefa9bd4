"""Ranks that share rows train and measure what one rank does, on real ZeRO-3."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sft.config import SftConfig
from sft.engine.single_process import SingleProcessEngine
from sft.world import World
from tests.distributed.launch import run_ranks
from tests.distributed.scenarios import build_loader, take_steps, whole_state
from tests.model.tiny_folders import write_tiny

TOLERANCE = 1e-5
# Windows and sinks; windows and capped scores; latent attention and experts; experts; one head of keys.
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_oss": {},
    "gemma2": {},
    "deepseek_v3": {},
    "mixtral": {},
    "starcoder2": {"num_key_value_heads": 1},
}
FOR_FOUR = {"gpt_oss", "starcoder2"}
"""Four ranks share their rows, too: a sink for each head, and one head of keys that all of them need."""


def of_oracle(settings: dict[str, Any]) -> tuple[list[float], torch.Tensor]:
    """Loss and norm, and the gradient, of the first step by the engine of one rank."""
    config = SftConfig.model_validate(settings["config"])
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    [step] = take_steps(engine, config, build_loader(settings, World()), 0, 1)
    return step, whole_state(engine, "exp_avg") / (1 - config.stages[0].optimizer.betas[0])


def check_gradients(settings: dict[str, Any], folder: Path, size: int, parts: int, packs: list[int]) -> None:
    step, expected = of_oracle(settings)
    asked = {**settings, "packs_per_micro_batch": packs, "folder": str(folder)}
    for result in run_ranks(size, "gradients", asked, sequence_parallel=parts):
        gradient = torch.load(result["path"], weights_only=True)
        assert float((gradient - expected).norm() / expected.norm()) < TOLERANCE
        assert [result["loss"], result["grad_norm"]] == pytest.approx(step, rel=TOLERANCE)


def test_two_ranks_that_share_rows_give_the_gradient_of_one(workload: dict[str, Any], tmp_path: Path) -> None:
    check_gradients(workload, tmp_path, 2, 2, [2, 1])


@pytest.mark.long
@pytest.mark.parametrize(
    ("size", "parts"),
    [
        pytest.param(4, 2, id="two groups of two, six packs: all have the same number"),
        pytest.param(4, 4, id="four ranks, two heads of keys: each is sent twice"),
        pytest.param(3, 2, id="a rank is left over, and runs empty micro-batches"),
    ],
)
def test_every_number_of_ranks_to_a_row_gives_the_same_gradient(
    workload: dict[str, Any], tmp_path: Path, size: int, parts: int
) -> None:
    # The first recomputes no layer, the second half of them, the third all.
    check_gradients(workload, tmp_path, size, parts, [2, 4, 1])


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_other_kinds_of_attention_give_the_same_gradient(family: str, workload: dict[str, Any], tmp_path: Path) -> None:
    content = copy.deepcopy(workload["config"])
    model = write_tiny(tmp_path / "tiny", family, Path(content["model"]["path"]), **FAMILIES[family])
    content["model"]["path"] = str(model)
    # Seven packs in two steps, for two groups: one of them runs an empty micro-batch.
    settings = {**workload, "config": content, "packs_per_step": 3}
    check_gradients(settings, tmp_path, 4, 2, [1, 1, 2])
    if family in FOR_FOUR:
        check_gradients(settings, tmp_path, 4, 4, [3])


@pytest.mark.long
def test_what_is_held_out_has_the_same_sums(workload: dict[str, Any]) -> None:
    alone = run_ranks(1, "heldout_sums", workload)
    shared = run_ranks(3, "heldout_sums", workload, sequence_parallel=2)
    assert shared.keys() == alone.keys()
    for task, numbers in alone.items():
        assert shared[task] == pytest.approx(numbers, rel=1e-5)
        assert [shared[task][name] for name in ("num_supervised_tokens", "num_examples")] == [
            numbers[name] for name in ("num_supervised_tokens", "num_examples")
        ]


def test_the_probe_runs_on_the_real_engine_and_finds_what_only_a_cut_shows(workload: dict[str, Any]) -> None:
    whole, cut = run_ranks(2, "layout_of_shared_rows", workload, sequence_parallel=2)
    assert whole == ""
    assert re.search(r"nats a token .* Use train\.sequence_parallel=1 if it is right then", cut)


def test_heads_that_only_the_real_model_shows_are_refused_by_all_ranks_at_once(
    workload: dict[str, Any], tmp_path: Path
) -> None:
    """The third rank has no group, and so no part in any exchange: it must not wait for the others in the model."""
    content = copy.deepcopy(workload["config"])
    numbers = {"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 48}
    content["model"]["path"] = str(write_tiny(tmp_path / "tiny", "llama", Path(content["model"]["path"]), **numbers))
    settings = {**workload, "config": content}
    found = run_ranks(3, "layout_of_shared_rows", settings, sequence_parallel=2, longest_seconds=60)
    assert set(found) == {
        "train.sequence_parallel: 2: 3 heads of attention, 3 of keys, cannot be divided among 2 workers equally. "
        "For this model work: 1, 3."
    }
