"""What went wrong for users of other systems with the memory of ZeRO-3. Each test is named after it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from sft.config import SftConfig
from sft.data.loader import StepLoader
from sft.engine.single_process import SingleProcessEngine
from sft.model.loss import NllHead, TokenMeasure, token_nll
from sft.step_plan import StepPlan
from sft.training.workload import prepare_workload
from tests.conftest import WORDS, SmallRecords
from tests.distributed.launch import run_ranks
from tests.jobs import PARTITION_ALL

WORLD_SIZE = 2


@pytest.fixture(scope="module")
def memory(workload: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of two ranks that load, train and export; with parameters as large as the threshold of DeepSpeed."""
    content = {**workload["config"], "deepspeed": {"extra": PARTITION_ALL}}
    folder = tmp_path_factory.mktemp("memory")
    return run_ranks(WORLD_SIZE, "zero3_memory", {**workload, "config": content, "folder": str(folder)})


def test_every_rank_loads_the_whole_model(memory: Any) -> None:
    """Roblox/FAI-RL #66 (in a worker that makes DeepSpeed's config too late), LLaMA-Factory #4745."""
    sizes = memory["held"]["sizes"]
    assert max(sizes) < sum(sizes) / 2
    assert memory["held"]["while loading"] == max(sizes), "one module at a time"
    assert memory["held"]["loaded"] == 0


def test_the_model_is_not_partitioned_at_all(memory: Any) -> None:
    """axolotl #1717: more ranks do not make a larger model fit."""
    held = memory["held"]
    assert held["own parts"] == sum(-(-size // WORLD_SIZE) for size in held["sizes"])
    assert held["trained"] == 0, "what a step has gathered is given back"
    assert held["while exporting"] == max(held["sizes"]), "one parameter at a time"


def test_offload_does_nothing(memory: Any, trajectory: list[list[float]]) -> None:
    """TRL #3183."""
    assert memory["offloaded"] == [True, True]
    assert memory["devices"] == ["cpu"]
    assert memory["steps"] == [pytest.approx(step, rel=1e-4) for step in trajectory[:2]]


@pytest.mark.parametrize(("overlong", "left_out_and_shortened"), [("drop", (1, 0)), ("truncate", (0, 1))])
def test_one_long_record_makes_one_batch_that_does_not_fit(
    workload: dict[str, Any],
    small_records: SmallRecords,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overlong: str,
    left_out_and_shortened: tuple[int, int],
) -> None:
    """DeepSpeed #4005. No batch is longer than its packs, and of its logits only a chunk is there at a time."""
    words = WORDS * 12
    record = {"instruction": "Count the words.", "input": " ".join(words), "output": str(len(words)), "task": "count"}
    source = copy.deepcopy(workload["config"]["data"]["sources"][0])
    source["path"] = str(tmp_path / "records.jsonl")
    Path(source["path"]).write_text(small_records.instructions.read_text() + json.dumps(record) + "\n")
    rules = {"max_len_tokens": 256, "overlong": overlong, "holdout": {"share": 0}}
    data = {"sources": [source], "cache_dir": str(tmp_path / "cache"), **rules}
    content = {**workload["config"], "run": {"name": "long", "dir": str(tmp_path / "run")}, "data": data}
    config = SftConfig.model_validate({**content, "stages": [{**content["stages"][0], "budget": {"epochs": 2}}]})
    _workload, store, (plan,) = prepare_workload(config)
    loader = StepLoader(store, plan, StepPlan(len(plan), 6, 1, packs_per_micro_batch=2), 0)
    batches = [batch for step in range(loader.steps.num_steps) for batch in loader.micro_batches(step)]
    assert (store.manifest["num_too_long"], store.manifest["num_shortened"]) == left_out_and_shortened
    assert {i for batch in batches for i in batch.example_ids} == set(range(len(store)))
    assert max(batch.num_tokens for batch in batches) <= 2 * config.train.pack_len_tokens

    chunks, measure_chunk = list[int](), NllHead._measure_chunk

    def spied(head: NllHead, hidden_SH: Tensor, targets_S: Tensor, measure: TokenMeasure) -> Tensor:
        chunks.append(len(targets_S))
        return measure_chunk(head, hidden_SH, targets_S, measure)

    monkeypatch.setattr(NllHead, "_measure_chunk", spied)
    longest = max(batches, key=lambda batch: batch.num_supervised_tokens)
    SingleProcessEngine(config, config.stages[0].optimizer, config.model.path).segment_sums(longest, [token_nll])
    assert sum(chunks) == longest.num_supervised_tokens
    assert max(chunks) <= config.train.logits_chunk_tokens
