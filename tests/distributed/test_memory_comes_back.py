"""What a stage has held is given back before the next one needs it: real ZeRO-3, through a whole curriculum."""

from pathlib import Path
from typing import Any

import pytest

from sft.config import SftConfig
from sft.training.workload import prepare_workload
from tests.conftest import SmallRecords
from tests.distributed.launch import run_ranks
from tests.jobs import two_stage_job


@pytest.mark.long
def test_nothing_of_a_stages_engine_outlives_the_stage(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    content = two_stage_job("stages", tmp_path, tiny_model_dir, small_records, {"broad": 2, "words": 2})
    prepared, _store, _plans = prepare_workload(SftConfig.model_validate(content))
    settings = {"config": content, "workload": prepared.as_json()}
    at_first, between, at_last = run_ranks(2, "memory_by_stage", settings)
    assert (between["left"], at_last["left"]) == ([], [])
    # In it lay some 0.9 MiB: this rank's half of 18 bytes a parameter.
    assert abs(between["mib"] - at_first["mib"]) < 0.2
    assert abs(at_last["mib"] - at_first["mib"]) < 0.2


def test_a_checkpoint_takes_the_state_where_the_optimizer_keeps_it(workload: dict[str, Any]) -> None:
    content = {**workload["config"], "deepspeed": {"offload_optimizer": "cpu"}}
    found = run_ranks(2, "where_the_state_lies", {**workload, "config": content})
    assert found == {"offloaded": True, "devices": ["cpu"], "is_in_place": True}
