"""One example a row: ZeRO-3 trains what the plain engine trains, for every world size, also with dropout and killed."""

import copy
from pathlib import Path
from typing import Any

import pytest

from sft.config import SftConfig
from sft.engine.single_process import SingleProcessEngine
from sft.world import World
from tests.distributed.launch import run_ranks
from tests.distributed.scenarios import build_loader, take_steps
from tests.model.tiny_folders import write_tiny

SAVED_AT, NUM_STEPS = 1, 2
FAMILIES: dict[str, dict[str, Any]] = {
    # Convolutions and attention; no dropout.
    "lfm2": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    # Dropout of embeddings, attention and residuals, and activations that are computed again.
    "gpt2": {"embd_pdrop": 0.1, "attn_pdrop": 0.1, "resid_pdrop": 0.1, "tie_word_embeddings": False},
}


def settings_of(family: str, workload: dict[str, Any], folder: Path) -> dict[str, Any]:
    content = copy.deepcopy(workload["config"])
    model = write_tiny(folder / "tiny", family, Path(content["model"]["path"]), **FAMILIES[family])
    content["model"] |= {"path": str(model), "dropout": "as_configured" if family == "gpt2" else "none"}
    content["train"] |= {"packing": "one_example", "activation_checkpointing": family == "gpt2"}
    return {**workload, "config": content, "folder": str(folder), "saved_at": SAVED_AT, "num_steps": NUM_STEPS}


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_every_world_size_trains_the_same_and_killed_is_never_killed(
    family: str, workload: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_of(family, workload, tmp_path)
    config = SftConfig.model_validate(settings["config"])
    oracle = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    steps = take_steps(oracle, config, build_loader(settings, World()), 0, NUM_STEPS)
    straight = run_ranks(2, "train_save_export", settings)
    assert straight["steps"] == [pytest.approx(step, rel=1e-4) for step in steps]
    if family == "gpt2":
        assert run_ranks(2, "resume", settings)["steps"] == straight["steps"][SAVED_AT:]
    # Six packs on four ranks: some run empty batches.
    resumed = run_ranks(4, "resume", settings)
    assert resumed["steps"] == [pytest.approx(step, rel=1e-4) for step in steps[SAVED_AT:]]


def test_two_ranks_train_what_one_process_trains(workload: dict[str, Any], tmp_path: Path) -> None:
    """With dropout. The same with a kill and with other numbers of ranks takes three times as long."""
    settings = settings_of("gpt2", workload, tmp_path)
    config = SftConfig.model_validate(settings["config"])
    oracle = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    steps = take_steps(oracle, config, build_loader(settings, World()), 0, NUM_STEPS)
    [trained] = run_ranks(2, "with_changes", {**settings, "changes": [{}]})
    assert trained == [pytest.approx(step, rel=1e-4) for step in steps]


def test_both_layouts_train_the_same(workload: dict[str, Any]) -> None:
    losses = []
    for packing in ("packed", "one_example"):
        settings = copy.deepcopy(workload)
        settings["config"]["train"]["packing"] = packing
        config = SftConfig.model_validate(settings["config"])
        engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
        losses.append(take_steps(engine, config, build_loader(settings, World(), 2), 0, 3))
    assert losses[1] == [pytest.approx(step, rel=1e-4) for step in losses[0]]
    assert losses[0] != losses[1], "they are computed in other ways"
