"""A whole job on the text of a model that also sees: its layout found, each pack fed once, its eyes as they were."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sft.config import SftConfig
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from sft.verification.run_check import verify_run
from tests.checkpoint.exported import tensors_of
from tests.distributed.launch import run_ranks
from tests.model.tiny_checkpoints import write_checkpoint

LAYOUTS = {"gemma3": "packed", "llama4": "one_example"}
_TOWERS = ("vision", "multi_modal_projector")


@pytest.mark.long
def test_the_text_of_a_model_that_sees_is_trained_and_the_rest_is_exported_bit_for_bit(
    workload: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    jobs = []
    for family in LAYOUTS:
        base = write_checkpoint(family, tmp_path / family)
        content = copy.deepcopy(workload["config"])
        content["run"] |= {"name": family, "dir": str(tmp_path / f"{family}-run")}
        content["model"] |= {"path": str(base), "tokenizer": str(tiny_model_dir)}
        content["train"]["packing"] = "auto"
        content["stages"][0]["budget"] = {"steps": 2}
        prepared, _store, _plans = prepare_workload(SftConfig.model_validate(content))
        jobs.append((content, prepared.as_json()))
    assert all(run_ranks(2, "run_jobs", {"jobs": jobs}))
    for family, layout in LAYOUTS.items():
        run = RunFolder(tmp_path / f"{family}-run")
        assert json.loads(run.layout.read_text())["layout"] == layout
        verified = verify_run(run)
        assert (verified.findings, verified.is_finished) == ((), True)
        before, after = tensors_of(tmp_path / family), tensors_of(run.stage(0, "only").model)
        assert before.keys() == after.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        seeing = {name for name in before if any(part in name for part in _TOWERS)}
        assert len(seeing) > 10
        assert len(changed) > 10
        assert not changed & seeing
