"""A stage that has trained gets more budget: what was planned stays, and the whole is as good as one plan."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.planning.budget import without_drawn
from sft.data.planning.extension import described_parts, is_wanted_still, kept_of
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.stage_plan import plan_heldout, plan_stages
from sft.dealing import CostRates
from sft.errors import UserError
from sft.ledger import LedgerEntry, LedgerWriter
from sft.run_folder import RunFolder
from sft.training.lr_schedule import LrSchedule, StageSchedule
from tests.data.stores import config_of, random_store

FEW = {"chat": 60, "code": 25, "maths": 10, "poems": 3}
OLD, NEW = {"lr": 1e-4, "schedule": "cosine"}, {"lr": 3e-5, "schedule": "linear", "warmup_ratio": 0.2}


@pytest.fixture(scope="module")
def store():
    return random_store(0, FEW)


def plan(folder, store, budget, optimizer=OLD, recorded=OLD, rates=None, **more):
    """The newest plan of a stage, as `prepare_workload` has it made; `recorded` is the optimizer in the record."""
    config = config_of(folder, {"budget": budget, "optimizer": optimizer, **more})
    before = config_of(folder, {"optimizer": recorded}).stages[0]
    record = [{"name": "s0", "optimizer": before.optimizer.model_dump(mode="json")}]
    (made,) = plan_stages(config, store, record if RunFolder(folder).has_trained() else (), cost_rates=lambda: rates)
    return made


def train(folder, num_steps):
    """So many steps of the stage are in its ledger."""
    stage = RunFolder(folder).stage(0, "s0")
    writer = LedgerWriter(stage.ledger, 1)
    writer.resume(0)
    for step in range(num_steps):
        writer.append(LedgerEntry(step, 1, 1, (step,), 0, True))
    stage.metrics.write_text("{}\n", encoding="utf-8")


def assert_begins_as(new, old):
    assert np.array_equal(new.starts[: len(old) + 1], old.starts)
    assert np.array_equal(new.example_ids[: len(old.example_ids)], old.example_ids)
    assert np.array_equal(new.num_supervised[: len(old)], old.num_supervised)
    steps, before = new.steps(), old.steps()
    assert [steps.step_packs(i) for i in range(before.num_steps)] == [
        before.step_packs(i) for i in range(before.num_steps)
    ]


BUDGETS = st.one_of(
    st.integers(1, 9).map(lambda n: {"steps": n}),
    st.sampled_from([0.3, 1.0, 1.7]).map(lambda n: {"epochs": n}),
    st.integers(2_000, 9_000).map(lambda n: {"supervised_tokens": n}),
    st.integers(4_000, 12_000).map(lambda n: {"tokens": n}),
)
LARGER = st.one_of(
    st.integers(20, 45).map(lambda n: {"steps": n}),
    st.sampled_from([5.0, 6.5]).map(lambda n: {"epochs": n}),
    st.integers(40_000, 60_000).map(lambda n: {"supervised_tokens": n}),
    st.integers(150_000, 200_000).map(lambda n: {"tokens": n}),
)


@settings(max_examples=15)
@given(st.integers(0, 2**32), BUDGETS, LARGER, st.sampled_from(["natural", "equal"]))
def test_what_was_planned_stays_and_every_task_goes_on_where_it_ended(tmp_path_factory, seed, first, then, rates):
    folder, store = tmp_path_factory.mktemp("run"), random_store(seed, FEW)
    mixture = {"rates": rates}
    old = plan(folder, store, first, mixture=mixture)
    train(folder, 1)
    new = plan(folder, store, then, NEW, mixture=mixture)
    assert_begins_as(new, old)
    # The budget is that of the whole, whatever kind it is of.
    if "steps" in then:
        assert new.manifest["num_steps"] == then["steps"]
    if "supervised_tokens" in then:
        assert 0 <= new.num_supervised.sum() - then["supervised_tokens"] < store.num_supervised.max()
    if "tokens" in then:
        assert 0 <= new.num_tokens.sum() - then["tokens"] < store.lengths.max()
    steps = new.steps(3, 2)
    assert steps.num_steps == new.manifest["num_steps"]
    packs = [pack for step in range(steps.num_steps) for pack in steps.step_packs(step)]
    assert packs == list(range(len(new)))
    assert all(steps.step_of(pack) == step for step in range(steps.num_steps) for pack in steps.step_packs(step))
    # No example of a task is ahead of another one by more than one draw, at the end of any step.
    drawn = defaultdict(int)
    tasks = {t: np.flatnonzero(store.task_ids == t).tolist() for t in range(len(FEW))}
    trained = set(new.example_ids.tolist())
    for step in range(steps.num_steps):
        for pack in steps.step_packs(step):
            for example in new.pack_examples(pack).tolist():
                drawn[example] += 1
        for examples in tasks.values():
            counts = [drawn[e] for e in examples if e in trained]
            # What a step leaves over is trained in the next.
            assert max(counts, default=0) - min(counts, default=0) <= 2
    assert sum(row["num_examples"] for row in new.manifest["mixture"]) == len(new.example_ids)


@pytest.mark.parametrize("unit", ["examples", "supervised_tokens"])
def test_an_epoch_and_then_another_is_two_epochs_of_everything(store, tmp_path, unit):
    mixture = {"unit": unit}
    old = plan(tmp_path, store, {"epochs": 1}, mixture=mixture)
    train(tmp_path, 1)
    new = plan(tmp_path, store, {"epochs": 2}, mixture=mixture)
    _, counts = np.unique(new.example_ids, return_counts=True)
    assert set(counts.tolist()) == {2}
    assert len(old) % 4, "the last step of the first part is a short one, and stays so"
    assert new.steps().part_steps == [old.manifest["num_steps"]] * 2 or len(new) > 2 * len(old) - 4


def test_shares_hold_in_what_is_added(tmp_path):
    store = random_store(3)
    mixture = {"rates": "equal"}
    old = plan(tmp_path, store, {"supervised_tokens": 40_000}, mixture=mixture)
    train(tmp_path, 1)
    new = plan(tmp_path, store, {"supervised_tokens": 160_000}, mixture=mixture)
    added = new.example_ids[len(old.example_ids) :]
    units = np.bincount(store.task_ids[added], weights=store.num_supervised[added], minlength=4)
    assert units / units.sum() == pytest.approx([0.25] * 4, abs=0.01)


def test_the_learning_rate_is_another_only_where_nothing_was_planned(store, tmp_path):
    plan(tmp_path, store, {"steps": 5})
    train(tmp_path, 5)
    new = plan(tmp_path, store, {"steps": 12}, NEW)
    train(tmp_path, 7)
    last = plan(tmp_path, store, {"steps": 20}, {"lr": 1e-6}, recorded=NEW)
    optimizers = [config_of(tmp_path, {"optimizer": o}).stages[0].optimizer for o in (OLD, NEW, {"lr": 1e-6})]
    wanted = [LrSchedule(o, n)(step) for o, n in zip(optimizers, (5, 7, 8), strict=True) for step in range(n)]
    schedule = StageSchedule.of(optimizers[2], last)
    assert [schedule(step) for step in range(20)] == wanted
    assert schedule.num_steps == 20
    with pytest.raises(IndexError):
        schedule(20)
    assert_begins_as(last, new)
    assert last.first_inputs == PackPlan.open(tmp_path / "stages/0-s0/packs").manifest["inputs"]


def test_an_extension_by_which_nothing_was_trained_is_planned_anew(store, tmp_path):
    old = plan(tmp_path, store, {"steps": 5})
    train(tmp_path, 5)
    plan(tmp_path, store, {"steps": 9}, NEW)
    # A larger one, another rate, and back to what it was. The record has the new rate meanwhile.
    other = plan(tmp_path, store, {"steps": 11}, {"lr": 1e-6}, recorded=NEW)
    assert [part.schedule["lr"] for part in other.parts] == [1e-4, 1e-6]
    assert other.steps().part_steps == [5, 6]
    slower = plan(tmp_path, store, {"steps": 11}, {"lr": 1e-7}, recorded=NEW)
    assert [part.schedule["lr"] for part in slower.parts] == [1e-4, 1e-7]
    assert np.array_equal(slower.example_ids, other.example_ids)
    back = plan(tmp_path, store, {"steps": 5}, recorded=NEW)
    assert np.array_equal(back.example_ids, old.example_ids)
    assert plan(tmp_path, store, {"steps": 5}, recorded=NEW).path == back.path, "it is found again"


@pytest.mark.parametrize(
    ("budget", "optimizer", "said"),
    [
        ({"steps": 4}, OLD, "its budget was 5 steps and is now 4 steps, which is not more: 5 steps are planned"),
        ({"epochs": 0.1}, OLD, "its budget was 5 steps and is now 0.1 epochs, which is not more"),
        ({"supervised_tokens": 9}, NEW, "which is not more"),
        ({"steps": 5}, {"lr": 5e-5}, "lr was 0.0001 and is now 5e-05, but"),
    ],
)
def test_less_or_the_same_with_another_rate_is_refused(store, tmp_path, budget, optimizer, said):
    plan(tmp_path, store, {"steps": 5})
    train(tmp_path, 2)
    plan(tmp_path, store, {"steps": 7})
    with pytest.raises(UserError, match=said):
        plan(tmp_path, store, budget, optimizer)


def test_what_begun_is_never_made_less(store, tmp_path):
    plan(tmp_path, store, {"steps": 5})
    train(tmp_path, 5)
    plan(tmp_path, store, {"steps": 9}, NEW)
    train(tmp_path, 6)
    for budget in ({"steps": 5}, {"steps": 8}):
        with pytest.raises(UserError, match="9 steps are planned"):
            plan(tmp_path, store, budget, NEW, recorded=NEW)


def test_a_stage_that_has_not_begun_is_planned_anew_and_one_that_is_gone_leaves_nothing(store, tmp_path):
    first = {"budget": {"steps": 3}}
    plan_stages(config_of(tmp_path, first, {"budget": {"steps": 2}}, {"budget": {"steps": 2}}), store)
    train(tmp_path, 1)
    record = [{"name": "s0", "optimizer": {}}]
    other = {"name": "other", "mixture": {"rates": "equal"}, "budget": {"steps": 4}, "pack_len_tokens": 512}
    plans = plan_stages(config_of(tmp_path, first, other), store, record)
    assert [p.manifest["num_steps"] for p in plans] == [3, 4]
    assert sorted(p.name for p in (tmp_path / "stages").iterdir()) == ["0-s0", "1-other"]
    # What is held out is the same, whatever packs it is measured in.
    config = config_of(tmp_path, first, other | {"pack_len_tokens": 256}, data={"holdout": {"share": 0.3}})
    before = plan_heldout(config, store)
    shorter = config_of(tmp_path, first | {"pack_len_tokens": 300}, other, data={"holdout": {"share": 0.3}})
    now = plan_heldout(shorter, store)
    assert sorted(before.example_ids.tolist()) == sorted(now.example_ids.tolist())


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.data())
def test_what_is_drawn_is_left_out_once_for_each_draw(order, data):
    drawn = data.draw(st.lists(st.integers(0, 6), max_size=40))
    left, rest = list(order), list(drawn)
    for example in order:
        if example in rest:
            rest.remove(example)
            left.remove(example)
    assert without_drawn(np.array(order), np.array(drawn, dtype=np.int64)).tolist() == left


def test_a_stage_whose_steps_all_made_no_update_has_trained(store, tmp_path):
    plan(tmp_path, store, {"steps": 5})
    train(tmp_path, 0)
    stage = RunFolder(tmp_path).stage(0, "s0")
    stage.metrics.unlink()
    assert not stage.has_trained(), "an attempt has begun, and no step"
    train(tmp_path, 2)
    stage.metrics.unlink()
    assert stage.has_trained()
    assert RunFolder(tmp_path).has_trained()


def test_a_plan_that_lost_its_manifest_is_made_again_but_not_that_of_an_extension(store, tmp_path):
    old = plan(tmp_path, store, {"steps": 5})
    train(tmp_path, 5)
    (old.path / "manifest.json").unlink()
    again = plan(tmp_path, store, {"steps": 5})
    assert np.array_equal(again.example_ids, old.example_ids)
    new = plan(tmp_path, store, {"steps": 8})
    (new.path / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"packs-2: its manifest.json is missing.*Bring it back from a backup"):
        plan(tmp_path, store, {"steps": 8})


def test_a_part_that_an_earlier_version_planned_has_the_warm_up_that_it_had(store, tmp_path):
    plan(tmp_path, store, {"steps": 3})
    train(tmp_path, 1)
    new = plan(tmp_path, store, {"steps": 6}, NEW)
    for part in new.manifest["parts"]:
        del part["schedule"]["warmup_steps"], part["budget"]["tokens"]
    optimizer = config_of(tmp_path, {"optimizer": NEW}).stages[0].optimizer.model_copy(update={"warmup_steps": 3})
    assert [part.optimizer.warmup_steps for part in StageSchedule.of(optimizer, new).parts] == [None, None]
    assert is_wanted_still(new, config_of(tmp_path, {"optimizer": NEW}).stages[0])


def test_what_an_earlier_version_planned_is_kept_as_its_checkpoints_know_it(store, tmp_path):
    made = plan(tmp_path, store, {"steps": 3})
    budget = {"epochs": None, "steps": 3, "supervised_tokens": None}
    old = replace(made, manifest={**made.manifest, "inputs": {**made.manifest["inputs"], "budget": budget}})
    stage = config_of(tmp_path, {"budget": {"steps": 6}, "optimizer": OLD}).stages[0]
    record = {"optimizer": stage.optimizer.model_dump(mode="json")}
    kept = kept_of(RunFolder(tmp_path).stage(0, "s0"), stage, old, record)
    assert [part.budget for part in kept.parts] == [budget]
    assert described_parts(kept, stage, 1)[0]["budget"] == budget


@pytest.mark.parametrize("began_with", [None, CostRates(2, 5, 3)])
def test_trained_steps_keep_their_deal(tmp_path, store, began_with):
    """A plan of an earlier version has no costs, and gets none."""
    old = plan(tmp_path, store, {"steps": 3}, rates=began_with)
    before = [old.steps(3).dealt(step) for step in range(3)]
    train(tmp_path, 3)
    new = plan(tmp_path, store, {"steps": 9}, rates=CostRates(1, 1, 1))
    assert [new.steps(3).dealt(step) for step in range(3)] == before
    assert new.cost_rates == began_with
    if began_with is not None:
        lengths, supervised = store.lengths[new.example_ids], store.num_supervised[new.example_ids]
        of_examples = 2 * lengths + 5 * supervised + 3 * lengths**2
        assert new.costs.tolist() == np.add.reduceat(of_examples, new.starts[:-1]).tolist()
