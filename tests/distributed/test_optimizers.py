"""Another optimizer than AdamW, from its config to its checkpoint: ZeRO-3 computes what one process does."""

import copy
from pathlib import Path
from typing import Any

import pytest

from sft.config import SftConfig
from sft.engine.plain import PlainEngine
from sft.engine.single_process import SingleProcessEngine
from sft.optimizers import state_kinds
from sft.ranks.ranks import OneRank
from sft.world import World
from tests.distributed.launch import run_ranks
from tests.distributed.scenarios import build_loader, load, take_steps

SAVED_AT, NUM_STEPS = 2, 4


@pytest.mark.long
def test_lion_is_the_oracles_and_goes_on_from_its_checkpoint_at_any_size(
    workload: dict[str, Any], tmp_path: Path
) -> None:
    """To rounding: of a sum that is zero but for rounding, the sign may be another."""
    content = copy.deepcopy(workload["config"])
    content["stages"][0]["optimizer"] |= {"name": "lion", "lr": 1e-3}
    settings = {**workload, "config": content, "folder": str(tmp_path), "saved_at": SAVED_AT, "num_steps": NUM_STEPS}
    straight = run_ranks(2, "train_save_export", settings)

    config = SftConfig.model_validate(content)
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    loader = build_loader(workload, World())
    assert straight["steps"] == [pytest.approx(s, rel=1e-4) for s in take_steps(engine, config, loader, 0, NUM_STEPS)]

    again = run_ranks(2, "resume", settings)
    assert again["steps"] == straight["steps"][SAVED_AT:]
    assert again["differences"] == dict.fromkeys(state_kinds("lion"), 0.0)
    more = run_ranks(3, "resume", settings)
    assert more["steps"] == [pytest.approx(step, rel=1e-4) for step in straight["steps"][SAVED_AT:]]
    plain = PlainEngine(config, config.stages[0].optimizer, config.model.path, OneRank(), awaits_state=True)
    for one in (engine, plain):
        load(one, tmp_path / "checkpoints")
        alone = take_steps(one, config, loader, SAVED_AT, NUM_STEPS)
        assert alone == [pytest.approx(step, rel=1e-4) for step in straight["steps"][SAVED_AT:]]
