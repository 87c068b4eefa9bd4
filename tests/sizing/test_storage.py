"""The number of checkpoints is what saving and retention really leave, step by step."""

import itertools
from pathlib import Path

import pytest

from sft.checkpoint.retention import Retention, checkpoints_to_delete
from sft.job_config import load_job
from sft.sizing.memory import peak_memory
from sft.sizing.model_shape import model_shape
from sft.sizing.setting import Setting
from sft.sizing.storage import plan_storage
from tests.sizing.models import LLAMA_8B

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPE = model_shape(LLAMA_8B)


def most_at_one_time(
    stages: list[int], every: int | None, keep_last: int, keep_every: int | None, keep_ends: bool
) -> int:
    """By saving, publishing and deleting as a run does."""
    of_earlier, most = 0, 0
    for num_steps in stages:
        there: list[int] = []
        for step in range(1, num_steps + 1):
            if step == num_steps or (every and step % every == 0):
                there.append(step)
                most = max(most, of_earlier + len(there))
                for old in checkpoints_to_delete(there, Retention(keep_last, keep_every)):
                    there.remove(old)
        of_earlier += len(there) if keep_ends else 0
    return most


@pytest.mark.parametrize("keep_ends", [True, False])
@pytest.mark.parametrize("keep_last", [1, 2, 5])
@pytest.mark.parametrize("stages", [[1000], [40, 300], [300, 40], [7, 7, 7]])
def test_it_is_what_a_run_leaves(stages: list[int], keep_last: int, keep_ends: bool) -> None:
    for every, keep_every in itertools.product((None, 10, 200), (None, 100, 40)):
        names = [f"{{name: s{i}, budget: {{steps: {n}}}, optimizer: {{lr: 1.0}}}}" for i, n in enumerate(stages)]
        shown = {None: "null"}
        config = load_job(
            CONFIGS / "llama3_8b_1node.yaml",
            [
                f"stages=[{', '.join(names)}]",
                f"checkpoint.every_steps={shown.get(every, every)}",
                "checkpoint.every_minutes=null",
                f"checkpoint.keep_last={keep_last}",
                f"checkpoint.keep_every_steps={shown.get(keep_every, keep_every)}",
                f"checkpoint.keep_stage_ends={str(keep_ends).lower()}",
            ],
        ).sft
        real = most_at_one_time(stages, every, keep_last, keep_every, keep_ends)
        estimate = plan_storage(config, SHAPE, stages, None).num_checkpoints
        assert estimate == real, (every, keep_every)


def test_the_best_of_each_stage_takes_a_checkpoint_and_a_model_more() -> None:
    every = ["checkpoint={every_steps: 100, keep_last: 2, every_minutes: null}", "evaluate.every_steps=30"]
    stages = "stages=[{name: a, budget: {steps: 300}, optimizer: {lr: 1.0}}]"
    plain, best = (
        plan_storage(load_job(CONFIGS / "llama3_8b_1node.yaml", [stages, *every, *more]).sft, SHAPE, [300], None)
        for more in ([], ["checkpoint.best={score: loss}"])
    )
    assert (plain.num_checkpoints, plain.num_models) == (3, 1)
    assert (best.num_checkpoints, best.num_models) == (4, 2)


def test_bytes_are_those_of_a_checkpoint_and_a_model() -> None:
    config = load_job(CONFIGS / "llama3_8b_1node.yaml").sft
    storage = plan_storage(config, SHAPE, [None], 12345)
    assert storage.checkpoint == 12 * SHAPE.num_parameters
    assert storage.model == 2 * SHAPE.num_parameters
    assert storage.num_checkpoints == 3  # two are kept, and a third is there before the oldest goes
    assert storage.total == 3 * storage.checkpoint + storage.model + 12345
    with_lion = load_job(CONFIGS / "llama3_8b_1node.yaml", ["stages.0.optimizer={name: lion, lr: 1.0e-6}"]).sft
    assert plan_storage(with_lion, SHAPE, [None], 12345).checkpoint == 8 * SHAPE.num_parameters
    settings = [Setting.of(each, 0, num_workers=8, on_gpu=True, shape=SHAPE) for each in (config, with_lion)]
    saved = peak_memory(SHAPE, settings[0]).total - peak_memory(SHAPE, settings[1]).total
    assert saved == pytest.approx(4 * SHAPE.num_parameters / 8, abs=8)
