"""How long ranks wait for each other is for the hang watch to judge, and it sees that a step or a load goes on."""

from pathlib import Path
from typing import Any

from sft.config import SftConfig
from sft.training.workload import prepare_workload
from tests.conftest import SmallRecords
from tests.distributed.launch import run_ranks
from tests.jobs import two_stage_job


def test_a_collective_does_not_give_up_by_itself_once_the_watch_judges() -> None:
    """Its own timeout would count the time in which its process was suspended."""
    for is_left in (False, True):
        assert run_ranks(2, "waits_after_its_timeout", {"is_left_to_the_watch": is_left}) is is_left


def test_loading_a_model_into_shards_is_seen_to_go_on(workload: dict[str, Any]) -> None:
    for world_size in (1, 2):
        before, after, num_parameters = run_ranks(world_size, "collectives_of_loading", workload)
        assert after - before >= num_parameters


def test_each_micro_batch_of_a_step_is_seen(tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path) -> None:
    """A step of many is as long as it likes, also that of a rank without others."""
    content = two_stage_job("long", tmp_path, tiny_model_dir, small_records, {"broad": 2, "words": 1})
    content["stages"] = content["stages"][:1]
    prepared, _store, _plans = prepare_workload(SftConfig.model_validate(content))
    marks = run_ranks(1, "marks_of_steps", {"config": content, "workload": prepared.as_json()})
    assert list(marks) == ["0", "1"], "they came as JSON"
    for of_step in marks.values():
        assert len(set(map(tuple, of_step))) == len(of_step) > 1
