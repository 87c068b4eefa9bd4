"""The learning rate is a pure function of the step with the shape that the config says."""

import math

import pytest

from sft.config_optimizer import OptimizerConfig
from sft.training.lr_schedule import LrSchedule


def rates(schedule: str, num_steps: int = 100, **settings: float) -> list[float]:
    optimizer = OptimizerConfig.model_validate({"lr": 2.0, "schedule": schedule, **settings})
    build = LrSchedule(optimizer, num_steps)
    return [build(step) for step in range(num_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_it_warms_up_to_the_peak_and_never_rises_again(schedule: str) -> None:
    found = rates(schedule, warmup_ratio=0.1)
    assert found[:10] == [pytest.approx(2.0 * (i + 1) / 11) for i in range(10)]
    assert found[10] == 2.0
    assert all(later <= earlier for earlier, later in zip(found[10:], found[11:], strict=False))
    assert min(found) > 0, "every step learns"


@pytest.mark.parametrize("num_warmup", [1, 10, 99])
def test_a_warm_up_in_steps_is_the_same_as_that_share_of_them(num_warmup: int) -> None:
    assert rates("cosine", warmup_steps=num_warmup) == rates("cosine", warmup_ratio=num_warmup / 100)


def test_cosine_and_linear_end_at_their_least_rate() -> None:
    for schedule in ("cosine", "linear"):
        assert rates(schedule, 1000, min_lr_ratio=0.1)[-1] == pytest.approx(0.2, rel=0.02)
    assert rates("linear", 10, warmup_ratio=0.0) == [pytest.approx(2.0 * (1 - i / 10)) for i in range(10)]
    halfway = rates("cosine", 10, warmup_ratio=0.0)[5]
    assert halfway == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi / 2)))


def test_constant_stays() -> None:
    assert set(rates("constant", warmup_ratio=0.0)) == {2.0}


def test_one_step_learns_at_the_peak() -> None:
    assert rates("cosine", 1) == [2.0]
