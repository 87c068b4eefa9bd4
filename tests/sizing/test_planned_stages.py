"""What `sft prepare` has decided is shown as it is, if it was decided by the settings of now; and else not at all."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.job_config import JobConfig, load_job
from sft.sizing.forecast import Hardware, forecast
from sft.sizing.nodes import Nodes
from sft.sizing.planned_stages import read_planned
from sft.training.workload import prepare_workload
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job

PACKS = (1, 1)
"""Of a micro-batch in each stage."""


@pytest.fixture(scope="module")
def prepared(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TokenStore, list[PackPlan]]:
    folder = tmp_path_factory.mktemp("planned")
    content = two_stage_job("planned", folder, tiny_model_dir, small_records, {"broad": 3, "words": 2})
    content["stages"][0]["budget"] = {"epochs": 2}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    _, store, plans = prepare_workload(load_job(path).sft)
    return path, store, plans


def load(prepared: tuple[Path, TokenStore, list[PackPlan]], *overrides: str) -> JobConfig:
    return load_job(prepared[0], overrides)


def test_packs_steps_and_tokens_are_those_of_the_plan(prepared: tuple[Path, TokenStore, list[PackPlan]]) -> None:
    _, store, plans = prepared
    found = read_planned(load(prepared).sft, 1, PACKS)
    assert found.notes == ()
    assert found.token_store == sum(file.stat().st_size for file in store.path.iterdir() if file.suffix != ".json")
    for stage, plan in zip(found.stages, plans, strict=True):
        assert stage is not None
        assert (stage.num_packs, stage.num_steps) == (len(plan), plan.manifest["num_steps"])
        assert stage.counts.num_tokens == plan.num_tokens.sum()
        assert stage.counts.num_supervised_tokens == plan.num_supervised.sum()
        lengths = [len(store.example(i).input_ids) for i in np.asarray(plan.example_ids)]
        assert stage.counts.squared_lengths == sum(length * length for length in lengths)
        assert stage.mixture == tuple(plan.manifest["mixture"])


@pytest.mark.parametrize(
    ("override", "told", "num_planned"),
    [
        ("train.packs_per_step=6", "packs_per_step: planned 12, now 6", 0),
        ("stages.broad.budget.epochs=3", "budget.epochs: planned 2.0, now 3.0", 1),
        ("data.max_len_tokens=128", "max_len_tokens: planned 256, now 128", 0),
        ("data.holdout.share=0.2", "holdout.share: planned 0.05, now 0.2", 0),
        ("run.seed=5", "seed: planned 17, now 5", 0),
        ("data.sources.0.task=other", ".task: planned", 0),
        ("data.sources.0.name=other", "sources: planned", 0),
        ("data.sources.0.path=elsewhere.jsonl", "", 2),
        ("data.near_duplicate_similarity=0.5", "", 2),
        ("train.packs_per_micro_batch=3", "", 2),
        ("cluster.workers=4", "", 2),
    ],
)
def test_a_plan_of_other_settings_counts_as_none(
    prepared: tuple[Path, TokenStore, list[PackPlan]], override: str, told: str, num_planned: int
) -> None:
    found = read_planned(load(prepared, override).sft, 1, PACKS)
    assert sum(stage is not None for stage in found.stages) == num_planned
    assert told in " ".join(found.notes)
    assert bool(found.notes) == (num_planned < 2)


def test_before_it_is_prepared_nothing_is_claimed(prepared: tuple[Path, TokenStore, list[PackPlan]]) -> None:
    config = load(prepared, "run.dir=elsewhere").sft
    found = read_planned(config, 1, PACKS)
    assert found.stages == (None, None)
    assert found.token_store is None
    assert "sft prepare" in found.notes[0]
    stages = forecast(config, Hardware(1, 1, False, None, 0.4, None, Nodes(1, None, None, None, 0))).stages
    # A budget in epochs is open; of one in steps the packs are known, and full packs are the most tokens.
    assert (stages[0].num_steps, stages[0].num_tokens) == (None, None)
    assert (stages[1].num_steps, stages[1].num_packs, stages[1].num_tokens) == (2, 24, 24 * 256)
    assert not stages[1].is_planned


def test_a_missing_store_is_said(prepared: tuple[Path, TokenStore, list[PackPlan]], tmp_path: Path) -> None:
    found = read_planned(load(prepared, f"data.cache_dir={tmp_path}").sft, 1, PACKS)
    assert found.stages == (None, None)
    assert "is not here" in found.notes[0]
