"""Under ZeRO-3, which gathers weights around each module's forward, fused kernels give the same step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.fused_ranks import run_fused
from tests.forked_ranks import logs_of, zygote

PLAIN = [False, False, False]
"""Kernels, layers as leaves, activation checkpointing."""
OTHERS = [[True, False, False], [True, False, True], [True, True, False]]


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([[True, True, True]], id="leaves and checkpointing"),
        pytest.param(OTHERS, id="without one or both", marks=pytest.mark.long),
    ],
)
def test_with_kernels_a_step_is_the_same(workload: dict[str, Any], tmp_path: Path, cases: list[list[bool]]) -> None:
    settings = {**workload, "packs_per_step": 2, "cases": [PLAIN, *cases]}
    log = tmp_path / "rank"
    codes = zygote().start(run_fused, 2, log, settings, str(tmp_path), longest_seconds=240)
    assert not any(codes), logs_of(log)
    plain, *fused = json.loads((tmp_path / "result.json").read_text())
    assert plain["put"] == {}
    gradient = torch.tensor(plain["gradient"])
    for each in fused:
        assert each["put"] == {"norm": 5, "rotary": 2, "gated MLP": 2}
        assert float((torch.tensor(each["gradient"]) - gradient).norm() / gradient.norm()) < 1e-5
        assert each["step"] == pytest.approx(plain["step"], rel=1e-5)
