"""A stage's plan meets its budget, holds its mixture, keeps out what is held out, and is found again."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.atomic_files import read_json, sign_manifest, write_json
from sft.data.planning.holdout import held_out_examples
from sft.data.planning.plan_inputs import differences
from sft.data.planning.stage_plan import plan_heldout, plan_stages
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.step_plan import StepPlan
from tests.data.stores import TASKS, config_of, random_store

FEW = {"chat": 60, "code": 25, "maths": 10, "poems": 3}


@pytest.fixture(scope="module")
def store():
    return random_store()


def rows_of(plan):
    return {row["task"]: row for row in plan.manifest["mixture"]}


def planned_examples(plan):
    return np.concatenate([plan.pack_examples(i) for i in range(len(plan))])


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.floats(0.0, 0.6), st.lists(st.sampled_from(sorted(FEW)), unique=True, max_size=2))
def test_one_natural_epoch_trains_every_example_once_and_none_that_is_held_out(tmp_path_factory, seed, share, unseen):
    store = random_store(seed, FEW)
    holdout = {"share": share, "tasks": unseen}
    data = {"holdout": holdout}
    config = config_of(tmp_path_factory.mktemp("run"), {"budget": {"epochs": 1}}, data=data, run={"seed": seed})
    held_out = held_out_examples(store, config.data.holdout)
    if held_out.all():
        with pytest.raises(UserError, match="every example of the data is held out"):
            plan_stages(config, store)
        return
    (plan,) = plan_stages(config, store)
    assert sorted(planned_examples(plan).tolist()) == np.flatnonzero(~held_out).tolist()
    heldout_plan = plan_heldout(config, store)
    measured = set(planned_examples(heldout_plan).tolist()) if heldout_plan else set()
    assert measured == set(np.flatnonzero(held_out).tolist())


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from(["natural", "equal"]), st.floats(0.3, 4.0))
def test_no_stage_trains_what_is_measured(tmp_path_factory, seed, rates, epochs):
    store = random_store(seed, FEW)
    stages = [
        {"mixture": {"rates": rates}, "budget": {"epochs": epochs}},
        {"mixture": {"rates": "weights", "weights": {"chat": 1.0, "code": 2.0}, "replay": {"s0": 0.3}}},
    ]
    data = {"holdout": {"share": 0.2, "tasks": ["poems"]}}
    config = config_of(tmp_path_factory.mktemp("run"), *stages, data=data, evaluate={"max_examples_per_task": 5})
    plans = plan_stages(config, store)
    heldout_plan = plan_heldout(config, store)
    measured = planned_examples(heldout_plan)
    assert len(set(measured.tolist())) == len(measured)
    assert max(Counter(store.task_ids[measured].tolist()).values()) <= 5
    measured_prompts = set(store.prompt_hashes[measured].tolist())
    for plan in plans:
        trained = planned_examples(plan)
        assert not measured_prompts & set(store.prompt_hashes[trained].tolist())
        assert store.tasks.index("poems") not in store.task_ids[trained]


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 7), st.sampled_from(["supervised_tokens", "examples"]))
def test_a_budget_of_steps_is_met_exactly(tmp_path_factory, seed, num_steps, packs_per_step, unit):
    store = random_store(seed, FEW)
    stage = {"mixture": {"rates": "equal", "unit": unit}, "budget": {"steps": num_steps}}
    config = config_of(tmp_path_factory.mktemp("run"), stage, train={"packs_per_step": packs_per_step})
    (plan,) = plan_stages(config, store)
    assert len(plan) == num_steps * packs_per_step
    assert plan.manifest["num_packs"] == len(plan)
    assert plan.manifest["num_steps"] == num_steps == StepPlan(len(plan), packs_per_step, 1, 1).num_steps


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(2000, 60_000), st.sampled_from(["supervised_tokens", "examples"]))
def test_a_budget_of_supervised_tokens_is_met_to_within_one_example(tmp_path_factory, seed, budget, unit):
    store = random_store(seed, FEW)
    stage = {"mixture": {"rates": "equal", "unit": unit}, "budget": {"supervised_tokens": budget}}
    (plan,) = plan_stages(config_of(tmp_path_factory.mktemp("run"), stage), store)
    assert 0 <= plan.manifest["num_supervised_tokens"] - budget < store.num_supervised.max()
    assert plan.manifest["num_supervised_tokens"] == plan.num_supervised.sum()


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(5000, 90_000), st.sampled_from(["supervised_tokens", "examples"]))
def test_a_budget_of_all_tokens_is_met_to_within_one_example(tmp_path_factory, seed, budget, unit):
    store = random_store(seed, FEW)
    stage = {"mixture": {"rates": "equal", "unit": unit}, "budget": {"tokens": budget}}
    (plan,) = plan_stages(config_of(tmp_path_factory.mktemp("run"), stage), store)
    assert 0 <= plan.manifest["num_tokens"] - budget < store.lengths.max()
    assert plan.manifest["num_tokens"] == plan.num_tokens.sum()


@pytest.mark.parametrize("budget", [{"steps": 9}, {"tokens": 50_000}])
def test_a_plan_knows_its_epochs_only_where_they_were_asked_for(store, tmp_path, budget):
    (plan,) = plan_stages(config_of(tmp_path, {"budget": budget}), store)
    assert plan.epochs is None


def test_a_stage_that_ends_early_has_fewer_epochs_than_were_asked_for(store, tmp_path):
    stage = {"mixture": {"max_epochs_per_task": 2, "unit": "examples"}, "budget": {"epochs": 5}}
    (plan,) = plan_stages(config_of(tmp_path, stage), store)
    assert plan.manifest["ends_early"]
    assert plan.epochs == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("epochs", [0.5, 1.0, 2.5])
def test_a_budget_of_epochs_is_that_many_times_the_stages_tasks(store, tmp_path, epochs):
    stage = {"mixture": {"tasks": ["chat", "code"]}, "budget": {"epochs": epochs}}
    (plan,) = plan_stages(config_of(tmp_path, stage), store)
    assert plan.epochs == epochs
    rows = rows_of(plan)
    before = sum(rows[task]["num_supervised_tokens_before"] for task in ("chat", "code"))
    assert plan.manifest["num_supervised_tokens"] == pytest.approx(epochs * before, rel=0.02)
    assert rows["chat"]["epochs"] == pytest.approx(epochs, abs=0.01)
    assert rows["maths"]["num_examples"] == rows["poems"]["num_examples"] == 0


def test_a_capped_task_counts_for_the_cap_in_the_epoch(store, tmp_path):
    stage = {"mixture": {"unit": "examples", "cap": 100}, "budget": {"epochs": 1}}
    data = {"holdout": {"share": 0.0}}
    (plan,) = plan_stages(config_of(tmp_path, stage, data=data), store)
    assert {task: row["num_examples"] for task, row in rows_of(plan).items()} == {
        "chat": 100, "code": 100, "maths": 100, "poems": 40,
    }  # fmt: skip


def test_a_task_is_repeated_at_most_max_epochs_and_the_others_take_the_rest(store, tmp_path):
    mixture = {"rates": "equal", "max_epochs_per_task": 2, "unit": "examples"}
    stage = {"mixture": mixture, "budget": {"epochs": 1}}
    (plan,) = plan_stages(config_of(tmp_path, stage, data={"holdout": {"share": 0.0}}), store)
    rows = rows_of(plan)
    assert (rows["maths"]["num_examples"], rows["poems"]["num_examples"]) == (300, 80)
    assert rows["chat"]["num_examples"] + rows["code"]["num_examples"] == pytest.approx(
        sum(TASKS.values()) - 380, abs=1
    )
    assert max(Counter(planned_examples(plan).tolist()).values()) == 2


def test_a_stage_says_that_it_ends_before_its_epochs(store, tmp_path):
    mixture = {"rates": "natural", "max_epochs_per_task": 2, "unit": "examples"}
    holdout = {"holdout": {"share": 0.0}}
    (plan,) = plan_stages(config_of(tmp_path, {"mixture": mixture, "budget": {"epochs": 3}}, data=holdout), store)
    there = sum(TASKS.values())
    assert plan.manifest["ends_early"]
    assert (plan.manifest["num_units"], plan.manifest["num_units_wanted"]) == (2 * there, 3 * there)
    met = config_of(tmp_path / "met", {"mixture": mixture, "budget": {"epochs": 2}}, data=holdout)
    (plan,) = plan_stages(met, store)
    assert not plan.manifest["ends_early"]
    assert plan.manifest["num_units"] == plan.manifest["num_units_wanted"] == 2 * there


@pytest.mark.parametrize("budget", [{"steps": 1000}, {"supervised_tokens": 10**7}, {"tokens": 10**8}])
def test_a_budget_that_the_epochs_do_not_allow_is_refused_with_both_numbers(store, tmp_path, budget):
    stage = {"name": "big", "mixture": {"max_epochs_per_task": 2}, "budget": budget}
    with pytest.raises(
        UserError, match=r"stage big: the budget needs \d+ .* with at most 2\.0 epochs .* there are \d+\."
    ):
        plan_stages(config_of(tmp_path, stage), store)
    assert not RunFolder(tmp_path).stage(0, "big").packs.exists()


@pytest.mark.parametrize("unit", ["supervised_tokens", "examples"])
def test_shares_are_those_of_the_rates_with_replay(store, tmp_path, unit):
    stages = [
        {"mixture": {"rates": "temperature", "temperature": 2.0, "unit": unit}},
        {
            "mixture": {"rates": "weights", "weights": {"maths": 3, "poems": 1}, "replay": {"s0": 0.2}, "unit": unit},
            "budget": {"supervised_tokens": 150_000},
        },
    ]
    first, second = plan_stages(config_of(tmp_path, *stages), store)
    for plan in (first, second):
        for row in rows_of(plan).values():
            assert row["share"] == pytest.approx(row["share_target"], abs=0.01)
    earlier, rows = rows_of(first), rows_of(second)
    for task, own in {"maths": 0.75, "poems": 0.25, "chat": 0.0, "code": 0.0}.items():
        assert rows[task]["share_target"] == pytest.approx(0.8 * own + 0.2 * earlier[task]["share_target"])


def test_a_stage_is_replayed_as_it_drew_whatever_unit_either_counts_in(store, tmp_path):
    replayed = {"rates": "equal", "unit": "examples", "tasks": ["chat", "poems"]}
    stages = [
        {"mixture": replayed},
        {"mixture": {"tasks": ["code"], "replay": {"s0": 0.5}}, "budget": {"supervised_tokens": 100_000}},
    ]
    _, plan = plan_stages(config_of(tmp_path, *stages), store)
    rows = rows_of(plan)
    assert rows["code"]["share"] == pytest.approx(0.5, abs=0.01)
    # In examples the two are equal, as in the replayed stage; in tokens they are what their lengths make of that.
    assert rows["chat"]["num_examples"] == pytest.approx(rows["poems"]["num_examples"], rel=0.02)
    assert rows["chat"]["share"] != pytest.approx(rows["poems"]["share"], rel=0.01)


def test_no_task_has_less_than_the_least_share(store, tmp_path):
    stages = [{"mixture": {"min_share": 0.1}, "budget": {"supervised_tokens": 100_000}}]
    (plan,) = plan_stages(config_of(tmp_path, *stages), store)
    rows = rows_of(plan)
    assert {task for task, row in rows.items() if row["share_target"] == pytest.approx(0.1)} == {"maths", "poems"}
    assert rows["poems"]["share"] == pytest.approx(0.1, abs=0.005)
    with pytest.raises(UserError, match=r"stages\.0\.mixture\.min_share: 0\.3 for each of 4 tasks is 1\.2 .* 0\.2500"):
        plan_stages(config_of(tmp_path / "much", {"mixture": {"min_share": 0.3}}), store)


def test_the_mixture_table_tells_what_the_packs_hold(store, tmp_path):
    stage = {"mixture": {"rates": "equal"}, "budget": {"steps": 7}}
    (plan,) = plan_stages(config_of(tmp_path, stage), store)
    examples = planned_examples(plan)
    for task, row in rows_of(plan).items():
        mine = examples[store.task_ids[examples] == store.tasks.index(task)]
        assert row["num_examples"] == len(mine)
        assert row["num_supervised_tokens"] == store.num_supervised[mine].sum()
        assert row["epochs"] == pytest.approx(len(mine) / row["num_examples_before"])
        assert row["coverage"] == pytest.approx(len(set(mine.tolist())) / row["num_examples_before"])
        seen, repeated = set(), 0
        for i in mine.tolist():
            repeated += int(store.num_supervised[i]) if i in seen else 0
            seen.add(i)
        assert row["num_tokens_repeated"] == repeated
    assert sum(row["share"] for row in rows_of(plan).values()) == pytest.approx(1)
    assert plan.manifest["num_tokens"] == store.lengths[examples].sum() == plan.num_tokens.sum()
    assert plan.manifest["fill"] == pytest.approx(plan.num_tokens.sum() / (len(plan) * 256))


def test_the_balance_beside_the_packs_is_the_tables(store, tmp_path):
    stages = [{}, {"mixture": {"rates": "equal", "unit": "examples", "replay": {"s0": 0.2}}, "budget": {"epochs": 2}}]
    config = config_of(tmp_path, *stages)
    plans = plan_stages(config, store)
    for i, plan in enumerate(plans):
        balance = read_json(RunFolder(tmp_path).stage(i, f"s{i}").balance)
        assert {row["task"]: row for row in balance["tasks"]} == rows_of(plan)
        assert balance["stage"] == f"s{i}"
        assert balance["num_units"] == plan.manifest["num_units"]
        assert not balance["ends_early"]
    # Killed between plan and audit, the audit is made by the next start.
    RunFolder(tmp_path).stage(1, "s1").balance.unlink()
    plan_stages(config, store)
    assert read_json(RunFolder(tmp_path).stage(1, "s1").balance) == balance


@settings(max_examples=15)
@given(
    st.integers(0, 2**32), st.sampled_from(["equal", "natural"]), st.sampled_from([{"epochs": 7}, {"steps": 9}]),
    st.integers(1, 9), st.sampled_from(["supervised_tokens", "examples"]),
)  # fmt: skip
def test_no_step_trains_an_example_again_while_others_of_its_task_are_left(
    tmp_path_factory, seed, rates, budget, packs_per_step, unit
):
    store = random_store(seed, FEW)
    stage = {"mixture": {"rates": rates, "unit": unit}, "budget": budget}
    config = config_of(tmp_path_factory.mktemp("run"), stage, train={"packs_per_step": packs_per_step})
    (plan,) = plan_stages(config, store)
    trained = {task: set() for task in range(len(FEW))}
    for i in planned_examples(plan).tolist():
        trained[int(store.task_ids[i])].add(i)
    steps = StepPlan(len(plan), packs_per_step, 1, 1)
    for step in range(steps.num_steps):
        counts = Counter(i for pack in steps.step_packs(step) for i in plan.pack_examples(pack).tolist())
        for task in {int(store.task_ids[i]) for i, count in counts.items() if count > 1}:
            assert trained[task] <= counts.keys()


def test_however_many_steps_have_the_shares_of_the_stage(store, tmp_path):
    mixture = {"rates": "weights", "weights": {"chat": 4, "code": 3, "maths": 2, "poems": 1}}
    stage = {"mixture": mixture, "budget": {"steps": 40}}
    (plan,) = plan_stages(config_of(tmp_path, stage, train={"packs_per_step": 16}), store)
    steps = StepPlan(len(plan), 16, 1, 1)
    tokens = np.zeros((steps.num_steps, 4))
    for step in range(steps.num_steps):
        examples = np.concatenate([plan.pack_examples(i) for i in steps.step_packs(step)])
        tokens[step] = np.bincount(store.task_ids[examples], weights=store.num_supervised[examples])
    passed = np.cumsum(tokens, axis=0)
    surplus = passed - passed.sum(axis=1, keepdims=True) * np.array([0.4, 0.3, 0.2, 0.1])
    # What the order is away from its shares, and what two packs hold: so much is left over for the next step.
    assert np.abs(surplus).max() <= 2 * store.num_supervised.max() + 2 * 256
    assert passed[-1].sum() > 40 * np.abs(surplus).max()


def test_the_plan_knows_the_tokens_of_every_step(store, tmp_path):
    (plan,) = plan_stages(config_of(tmp_path, {"budget": {"epochs": 0.3}}), store)
    steps = StepPlan(len(plan), 4, 1, 1)
    for step in range(steps.num_steps):
        packs = [plan.read_pack(i, store) for i in steps.step_packs(step)]
        assert plan.num_supervised_tokens(steps.step_packs(step)) == sum(int(p.loss_mask.sum()) for p in packs)
    assert (
        sum(plan.num_supervised_tokens(steps.step_packs(s)) for s in range(steps.num_steps))
        == plan.num_supervised.sum()
    )


def test_a_pack_holds_its_examples_end_to_end(store, tmp_path):
    (plan,) = plan_stages(config_of(tmp_path, {"budget": {"steps": 3}}), store)
    for i in range(len(plan)):
        pack = plan.read_pack(i, store)
        assert pack.cu_seqlens[0] == 0
        assert pack.cu_seqlens[-1] == len(pack.input_ids) == plan.num_tokens[i] <= 256
        for example_id, start, stop in zip(pack.example_ids, pack.cu_seqlens[:-1], pack.cu_seqlens[1:], strict=True):
            example = store.example(int(example_id))
            assert pack.input_ids[start:stop].tolist() == example.input_ids.tolist()
            assert pack.loss_mask[start:stop].tolist() == example.loss_mask.tolist()


def read_files(folder):
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_a_plan_is_found_again_and_not_made_again(store, tmp_path):
    stages = [{}, {"mixture": {"rates": "equal", "replay": {"s0": 0.1}}, "budget": {"steps": 5}}]
    config = config_of(tmp_path, *stages)
    plan_stages(config, store)
    plan_heldout(config, store)
    before = read_files(tmp_path)
    # What does not change the packs does not count: the learning rate, the parts of a step, the run's name.
    stages[0] = {"optimizer": {"lr": 1.0, "schedule": "linear"}}
    again = config_of(
        tmp_path, *stages, train={"packs_per_micro_batch": 2}, run={"name": "other", "dir": str(tmp_path)}
    )
    plan_stages(again, store)
    plan_heldout(again, store)
    assert read_files(tmp_path) == before


def test_the_same_inputs_give_the_same_plan(store, tmp_path):
    arrays = [
        planned_examples(plan_stages(config_of(tmp_path / name, {}, run={"dir": str(tmp_path / name)}), store)[0])
        for name in ("a", "b")
    ]
    assert arrays[0].tolist() == arrays[1].tolist()
    other = config_of(tmp_path / "c", {}, run={"dir": str(tmp_path / "c"), "seed": 18})
    assert planned_examples(plan_stages(other, store)[0]).tolist() != arrays[0].tolist()


def train_a_step(folder, index=0):
    metrics = RunFolder(folder).stage(index, f"s{index}").metrics
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.write_text("{}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"run": {"seed": 18}}, "seed: planned 17, now 18"),
        ({"train": {"packs_per_step": 8}}, "packs_per_step: planned 4, now 8"),
        ({"train": {"pack_len_tokens": 512}}, "pack_len_tokens: planned 256, now 512"),
        ({"data": {"holdout": {"share": 0.5}}}, "holdout.share: planned 0.02, now 0.5"),
    ],
)
def test_a_plan_of_other_inputs_is_refused_with_the_difference(store, tmp_path, changed, difference):
    plan_stages(config_of(tmp_path, {}), store)
    train_a_step(tmp_path)
    with pytest.raises(UserError, match="was planned with other data or settings") as error:
        plan_stages(config_of(tmp_path, {}, **changed), store)
    assert difference in str(error.value)
    assert str(error.value).count(": planned ") == 1


def test_a_plan_of_another_store_or_mixture_is_refused_with_the_difference(store, tmp_path):
    replaying = {"mixture": {"replay": {"s0": 0.1}}}
    plan_stages(config_of(tmp_path, {}, replaying), store)
    plan_heldout(config_of(tmp_path, {}, replaying), store)
    train_a_step(tmp_path)
    other = random_store(1, name="other")
    for plan in (plan_stages, plan_heldout):
        with pytest.raises(UserError, match=r"data\.sources\.s\.content: planned 'store', now 'other'") as error:
            plan(config_of(tmp_path, {}, replaying), other)
        assert str(error.value).count(": planned ") == 1
    with pytest.raises(UserError, match=r"budget\.epochs: planned 1\.0, now 2\.0"):
        plan_stages(config_of(tmp_path, {"budget": {"epochs": 2}}, replaying), store)
    # A later stage depends on the mixture of the one that it replays.
    train_a_step(tmp_path, 1)
    (RunFolder(tmp_path).stage(0, "s0").packs / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"replayed\.s0\.rates: planned 'natural', now 'equal'"):
        plan_stages(config_of(tmp_path, {"mixture": {"rates": "equal"}}, replaying), store)


def test_many_differences_are_counted_and_long_values_are_cut():
    planned = {"a": {f"k{i:02}": i for i in range(20)}, "b": [1, 2], "store": "x"}
    now = {"a": {f"k{i:02}": "y" * 100 for i in range(20)}, "b": [1, 2], "store": "x"}
    lines = differences(planned, now)
    assert lines[0].startswith("a.k00: planned 0, now 'yyy")
    assert max(map(len, lines)) < 100
    assert lines[-1] == "… and 8 more"
    assert differences(planned, planned) == []
    # A fingerprint is shown where there is nothing that says more.
    assert differences({"store": "x", "data": {"v": 1}}, {"store": "y", "data": {"v": 1}}) == [
        "store: planned 'x', now 'y'"
    ]
    told = differences({"store": "x", "data": {"v": 1}}, {"store": "y", "data": {}})
    assert told == ["data.v: planned 1, now nothing"]


def test_before_the_first_step_a_plan_of_other_inputs_makes_room(store, tmp_path):
    plan_stages(config_of(tmp_path, {}), store)
    plan_heldout(config_of(tmp_path, {}), store)
    changed = {"data": {"holdout": {"share": 0.2}}}
    (plan,), heldout_plan = (plan(config_of(tmp_path, {}, **changed), store) for plan in (plan_stages, plan_heldout))
    fresh = config_of(tmp_path / "fresh", {}, **changed)
    assert planned_examples(plan).tolist() == planned_examples(plan_stages(fresh, store)[0]).tolist()
    assert planned_examples(heldout_plan).tolist() == planned_examples(plan_heldout(fresh, store)).tolist()


def test_no_plan_is_written_where_a_later_stage_cannot_be_planned(store, tmp_path):
    with pytest.raises(UserError, match=r"stages\.1\.mixture\.tasks"):
        plan_stages(config_of(tmp_path, {}, {"mixture": {"tasks": ["mats"]}}), store)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_task_is_named_with_a_near_one(store, tmp_path):
    with pytest.raises(UserError, match=r"stages\.0\.mixture\.tasks: .* 'mats' .*Did you mean 'maths'\?"):
        plan_stages(config_of(tmp_path, {"mixture": {"tasks": ["mats"]}}), store)
    mixture = {"rates": "weights", "weights": {"caht": 1}}
    with pytest.raises(UserError, match=r"stages\.1\.mixture\.weights: .* 'caht' .*Did you mean 'chat'\?"):
        plan_stages(config_of(tmp_path, {}, {"mixture": mixture}), store)


@pytest.mark.parametrize(
    "mixture", [{"tasks": ["chat", "poems"]}, {"rates": "weights", "weights": {"chat": 1, "poems": 1}}]
)
def test_a_task_of_which_all_is_held_out_is_not_called_unknown(store, tmp_path, mixture):
    data = {"holdout": {"tasks": ["poems"], "share": 0.0}}
    with pytest.raises(UserError, match=r"stages\.0\.mixture\..*'poems'.* all of its 40 examples are held out"):
        plan_stages(config_of(tmp_path, {"mixture": mixture}, data=data), store)


def test_where_everything_is_held_out_no_stage_is_planned(store, tmp_path):
    with pytest.raises(UserError, match="every example of the data is held out"):
        plan_stages(config_of(tmp_path, {}, data={"holdout": {"tasks": list(TASKS)}}), store)


def test_where_nothing_is_held_out_there_is_no_heldout_plan(store, tmp_path):
    assert plan_heldout(config_of(tmp_path, {}, data={"holdout": {"share": 0.0}}), store) is None
    assert not RunFolder(tmp_path).evaluations.exists()


def test_a_plan_of_a_version_that_did_not_have_some_field_is_found_again(store, tmp_path):
    """Of a mixture, a budget, what is held out, and what is replayed: each field in turn."""
    stages = {}, {"mixture": {"replay": {"s0": 0.1}}}
    config = config_of(tmp_path, *stages)
    plans = plan_stages(config, store)
    heldout = plan_heldout(config, store)
    train_a_step(tmp_path)
    train_a_step(tmp_path, 1)
    places = [(plans[1].path, *keys) for keys in (("mixture",), ("budget",), ("holdout",), ("replayed", "s0"))]
    for path, *keys in [*places, (heldout.path, "holdout")]:
        whole = {key: value for key, value in read_json(path / "manifest.json").items() if key != "manifest_sha256"}
        given = {"replay", "epochs"}  # these have no default here
        for name in set(_at(whole["inputs"], keys)) - given:
            old = json.loads(json.dumps(whole))
            del _at(old["inputs"], keys)[name]
            write_json(path / "manifest.json", sign_manifest(old))
            before = path.stat().st_ino
            plan_stages(config, store)
            plan_heldout(config, store)
            assert path.stat().st_ino == before, f"{keys} {name}: it was made anew"
        write_json(path / "manifest.json", sign_manifest(whole))


def _at(content, keys):
    for key in keys:
        content = content[key]
    return content


def test_a_cluster_of_a_task_that_is_not_in_the_data_is_refused_and_clusters_may_change_when_a_run_goes_on(
    store, tmp_path
):
    stage = {"budget": {"steps": 2}}
    wrong = config_of(tmp_path, stage, data={"clusters": {"more": ["chat", "mats"]}})
    with pytest.raises(UserError, match=r"data\.clusters: there is no task 'mats' .*Did you mean 'maths'\?"):
        plan_stages(wrong, store)
    assert not RunFolder(tmp_path).stages.exists()
    (plan,) = plan_stages(config_of(tmp_path, stage), store)
    (again,) = plan_stages(config_of(tmp_path, stage, data={"clusters": {"more": ["chat", "maths"]}}), store)
    assert again.path == plan.path
    assert again.manifest == plan.manifest
