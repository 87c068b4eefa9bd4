"""Under ZeRO-3, which gathers weights around each module's forward, fused kernels give the same steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.fused_ranks import run_fused
from tests.forked_ranks import logs_of, zygote

NOTHING_ELSE = [False, False, False]


def test_with_kernels_every_step_is_the_same_with_leaves_and_with_checkpointing(
    workload: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**workload, "cases": [NOTHING_ELSE, [True, False, False], [True, True, True]]}
    log = tmp_path / "rank"
    codes = zygote().start(run_fused, 2, log, settings, str(tmp_path), longest_seconds=240)
    assert not any(codes), logs_of(log)
    plain, *fused = json.loads((tmp_path / "result.json").read_text())
    assert plain["put"] == {}
    gradient = torch.tensor(plain["gradient"])
    for each in fused:
        assert each["put"] == {"norm": 5, "rotary": 2, "gated MLP": 2}
        assert float((torch.tensor(each["gradient"]) - gradient).norm() / gradient.norm()) < 1e-5
        for step, expected in zip(each["steps"], plain["steps"], strict=True):
            assert step == pytest.approx(expected, rel=1e-5)
