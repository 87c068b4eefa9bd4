"""What a forward pass says of held-out examples is what transformers says of each alone, however many ranks run it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from sft.config import SftConfig
from sft.data.collate import Batch
from sft.data.loader import StepLoader
from sft.data.planning.pack_plan import PackPlan
from sft.engine.engine import Engine
from sft.engine.single_process import SingleProcessEngine
from sft.evaluation.heldout import HeldoutSet, TokenEvaluator
from sft.evaluation.scores import LOSS, Sums
from sft.model.attention import attention_of
from sft.model.loss import TokenMeasure
from sft.ranks.ranks import OneRank, Ranks
from sft.training.workload import prepare_workload
from sft.world import World
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job


@dataclass
class OneOf:
    """The engine of one rank among several; what it has is not added up."""

    engine: SingleProcessEngine
    ranks: Ranks

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> Tensor:
        return self.engine.segment_sums(batch, measures)


def alone(model: Any, heldout: HeldoutSet) -> Sums:
    """The same from the model's own forward pass of each example."""
    sums: dict[str, Tensor] = {}
    for example_id in map(int, heldout.plan.example_ids):
        example = heldout.store.example(example_id)
        ids, mask = torch.from_numpy(example.input_ids.astype("int64")), torch.from_numpy(example.loss_mask[1:])
        with torch.no_grad(), attention_of(model, "eager"):
            log_probs = model(ids[None]).logits[0, :-1].log_softmax(-1)[mask]
        targets = ids[1:][mask]
        nll, num_hits = -log_probs.gather(1, targets[:, None]).sum(), (log_probs.argmax(1) == targets).sum()
        task = heldout.store.tasks[heldout.store.task_ids[example_id]]
        sums[task] = sums.get(task, torch.zeros(4)) + torch.tensor([nll, num_hits, len(targets), 1])
    names = ("loss", "token_accuracy", "num_supervised_tokens", "num_examples")
    return {task: dict(zip(names, added.tolist(), strict=True)) for task, added in sums.items()}


def test_it_is_what_each_example_has_alone_for_any_number_of_ranks(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    content = two_stage_job("run", tmp_path, tiny_model_dir, small_records, {"broad": 8, "words": 1})
    config = SftConfig.model_validate(content)
    workload, store, (plan, _) = prepare_workload(config)
    assert workload.heldout is not None
    heldout = HeldoutSet(store, PackPlan.open(workload.heldout), ())
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    loader = StepLoader(store, plan, plan.steps(), 0)
    for step in range(8):  # so that some of its choices are right
        engine.train_step(loader.micro_batches(step), loader.num_supervised_tokens(step), lr=1e-2)
    expected = alone(engine.hf_model, heldout)
    num_hits, num_tokens = (sum(s[name] for s in expected.values()) for name in ("token_accuracy", LOSS.over))
    assert 0.05 < num_hits / num_tokens < 0.95
    assert len(expected) > 1
    for size in (1, 3):
        ranks = [OneOf(engine, OneRank(World(rank, size))) for rank in range(size)]
        found = [TokenEvaluator(cast(Engine, rank), heldout).measure() for rank in ranks]
        assert {task for sums in found for task in sums} == expected.keys()
        for task, numbers in expected.items():
            added = {name: sum(sums.get(task, {}).get(name, 0) for sums in found) for name in numbers}
            assert added == pytest.approx(numbers, rel=1e-4)
