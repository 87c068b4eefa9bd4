"""A step is read while the one before it trains; what goes wrong then is said when its turn comes."""

import threading
from dataclasses import fields

import pytest
import torch

from sft.data.loader import StepLoader
from sft.data.planning.stage_plan import plan_stages
from sft.step_plan import StepPlan
from sft.training.lookahead import LookAhead
from sft.world import World
from tests.data.stores import config_of, random_store

WORLD = World(1, 2)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    store = random_store(0, {"chat": 60, "code": 20})
    (plan,) = plan_stages(config_of(tmp_path_factory.mktemp("run"), {"budget": {"epochs": 1}}), store)
    return store, plan, StepPlan(len(plan), 4, WORLD.size, 1)


@pytest.fixture
def look_ahead(planned):
    """Makes one with a function that is called with each pack that is read."""
    made = []

    def make(on_read):
        loader = StepLoader(*planned, WORLD.rank, read_staged=on_read)
        made.append(LookAhead(loader, loader.steps.num_steps, WORLD))
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert "look-ahead" not in {thread.name for thread in threading.enumerate()}


def test_each_step_is_what_the_loader_gives(planned, look_ahead):
    loader, ahead = StepLoader(*planned, WORLD.rank), look_ahead(lambda pack: None)
    for step in range(loader.steps.num_steps):
        for batch, wanted in zip(ahead.micro_batches(step), loader.micro_batches(step), strict=True):
            for field in fields(batch):
                value, other = getattr(batch, field.name), getattr(wanted, field.name)
                assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_the_next_step_is_read_while_one_trains_and_no_other(planned, look_ahead):
    loader, read, news = StepLoader(*planned, WORLD.rank), [], threading.Condition()

    def on_read(pack):
        with news:
            read.append(pack)
            news.notify()

    ahead = look_ahead(on_read)
    expected = []
    for step in range(loader.steps.num_steps):
        ahead.micro_batches(step)
        expected = [pack for s in range(min(step + 2, loader.steps.num_steps)) for pack in loader.own_packs(s)]
        with news:
            assert news.wait_for(lambda wanted=expected: len(read) >= len(wanted), timeout=60)
        assert sorted(read) == sorted(expected)


def test_an_error_is_raised_at_its_own_step(planned, look_ahead):
    bad = StepLoader(*planned, WORLD.rank).own_packs(2)[0]

    def on_read(pack):
        if pack == bad:
            raise OSError("the disk is gone")

    ahead = look_ahead(on_read)
    ahead.micro_batches(0)
    ahead.micro_batches(1)
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.micro_batches(2)


def test_a_run_that_stops_drops_what_was_read_ahead(planned, look_ahead):
    ahead = look_ahead(lambda pack: None)
    ahead.micro_batches(0)
    ahead.close()
    again = look_ahead(lambda pack: None)
    assert [batch.fed for batch in again.micro_batches(1)] == [
        batch.fed for batch in StepLoader(*planned, WORLD.rank).micro_batches(1)
    ]
