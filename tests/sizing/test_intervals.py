"""What failures cost follows from sizes and bandwidths; what the network carries is the traffic of the workers."""

import json
from io import StringIO
from itertools import product
from pathlib import Path

import pytest

from launcher.console import FitConsole
from launcher.plan import forecast_job, plan_job, workers_per_node
from launcher.plan_table import plan_table
from sft.errors import UserError
from sft.job_config import load_job
from sft.sizing.communication import Communication, step_communication
from sft.sizing.goodput import best_interval, share_time
from sft.sizing.intervals import compare_intervals, failure_costs
from sft.sizing.model_shape import model_shape
from sft.sizing.nodes import Nodes
from sft.sizing.setting import Setting
from sft.sizing.storage import plan_storage
from sft.sizing.traffic import step_traffic
from tests.sizing.models import LLAMA_8B

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPE = model_shape(LLAMA_8B)
NODES = Nodes(8, node_mtbf_hours=1000, storage_gb_per_second=4, network_gb_per_second=50, restart_seconds=60)


def communication(num_workers: int, micro_batches: int, has_hpz: bool, nodes: Nodes = NODES) -> Communication | None:
    config = load_job(CONFIGS / "llama3_8b_1node.yaml").sft
    setting = Setting.of(config, 0, num_workers, on_gpu=True, shape=SHAPE)._replace(num_copy_ranks=8 if has_hpz else 1)
    return step_communication(SHAPE, setting, step_traffic(SHAPE, setting, micro_batches), nodes)


def test_a_failure_costs_the_restart_and_reading_and_a_save_what_is_written() -> None:
    config = load_job(CONFIGS / "llama3_8b_1node.yaml").sft
    storage = plan_storage(config, SHAPE, [None], None)
    costs = failure_costs(storage, config.checkpoint, 32, NODES)
    assert costs is not None
    assert costs.between_failures == 1000 * 3600 / 4, "four nodes fail four times as often as one"
    assert costs.restart == pytest.approx(60 + 12 * 8.03e9 / 4e9, rel=0.001)
    assert costs.writing == pytest.approx(12 * 8.03e9 / 4e9, rel=0.001)
    assert costs.stall < costs.writing, "a copy of a part, in each worker"
    waiting = failure_costs(storage, config.checkpoint.model_copy(update={"async_": False}), 32, NODES)
    assert waiting is not None
    assert (waiting.stall, waiting.writing) == (costs.writing, 0.0)


@pytest.mark.parametrize("unknown", ["node_mtbf_hours", "storage_gb_per_second"])
def test_without_mean_time_or_bandwidth_nothing_is_said_of_failures(unknown: str) -> None:
    config = load_job(CONFIGS / "llama3_8b_1node.yaml").sft
    storage = plan_storage(config, SHAPE, [None], None)
    assert failure_costs(storage, config.checkpoint, 32, NODES._replace(**{unknown: None})) is None


def test_the_best_of_the_intervals_that_are_shown_is_called_the_best() -> None:
    config = load_job(CONFIGS / "llama3_8b_1node.yaml").sft
    costs = failure_costs(plan_storage(config, SHAPE, [None], None), config.checkpoint, 32, NODES)
    assert costs is not None
    for every in (1, 40, 400, 100_000):
        checkpoint = config.checkpoint.model_copy(update={"every_steps": every, "every_minutes": None})
        found = {i.name: i for i in compare_intervals(costs, checkpoint, 2.0, 2.0 * 50_000) if i.name != "other"}
        assert found["config"].steps == min(every, 50_000), "a stage's end has a checkpoint in any case"
        assert found["config"].seconds == 2.0 * min(every, 50_000)
        assert found["best"].seconds == pytest.approx(best_interval(costs), abs=1.0)
        assert found["best"].shares.training >= found["config"].shares.training
        assert found["best"].run_seconds == pytest.approx(1e5 / share_time(found["best"].seconds, costs).training)


def test_the_clock_decides_where_it_is_faster_and_steps_of_unknown_length_decide_nothing() -> None:
    config = load_job(CONFIGS / "llama3_8b_1node.yaml").sft
    costs = failure_costs(plan_storage(config, SHAPE, [None], None), config.checkpoint, 32, NODES)
    assert costs is not None
    both = config.checkpoint.model_copy(update={"every_steps": 1000, "every_minutes": 10.0})
    assert compare_intervals(costs, both, 2.0, None)[0].seconds == 600
    assert [i.name for i in compare_intervals(costs, both, None, None)] == ["best", "other", "other", "other"]
    by_clock = both.model_copy(update={"every_steps": None})
    assert compare_intervals(costs, by_clock, None, None)[0].seconds == 600


def test_what_the_network_carries_is_the_traffic_and_hpz_carries_parameters_once_a_step() -> None:
    whole = 2 * 8.03e9 * 15 / 16
    for micro_batches in (1, 4):
        without, with_hpz = (communication(16, micro_batches, has_hpz) for has_hpz in (False, True))
        assert without is not None
        assert with_hpz is not None
        assert without.gathering_with_hpz == pytest.approx(whole / 50e9, rel=0.001)
        assert whole <= without.gathering * 50e9 <= 2.1 * micro_batches * whole
        assert without.reducing == pytest.approx(micro_batches * 2 * whole / 50e9, rel=0.001), "in float32"
        assert with_hpz.seconds == without.gathering_with_hpz + without.reducing < without.seconds
        assert without.hpz_bytes == pytest.approx(2 * 8.03e9 / 8, rel=0.001)
    assert communication(8, 1, False) is None, "all in one node"
    assert communication(16, 1, False, NODES._replace(network_gb_per_second=None)) is None


def test_a_step_takes_as_long_as_a_slow_network(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    overrides = [f"model.path={tmp_path}", "cluster.workers=16", "cluster.gpu=h100-80gb", "slurm.workers_per_node=8"]

    def step(network: float | None, *more: str) -> tuple[float | None, float | None]:
        shown = "null" if network is None else network
        job = load_job(CONFIGS / "llama3_8b_1node.yaml", [*overrides, f"cluster.network_gb_per_second={shown}", *more])
        assert workers_per_node(job) == 8
        stage = forecast_job(job).stages[0]
        return stage.step_seconds, stage.communication and stage.communication.seconds

    arithmetic, _ = step(None)
    assert step(4000)[0] == arithmetic
    seconds, network = step(5)
    assert seconds == network
    assert arithmetic is not None
    assert network is not None
    assert network > arithmetic
    hpz = step(5, "deepspeed.hpz_partition_size=8")[1]
    assert hpz is not None
    assert hpz < network


def test_whatever_numbers_are_taken_there_is_a_plan(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    others = [f"model.path={tmp_path}", "cluster.workers=16", "slurm.workers_per_node=8", "cluster.restart_seconds=0"]
    extremes = [1e-6, 1e9]
    for mtbf, speed, saving, gpu in product(extremes, extremes, ["true", "false"], ["h100-80gb", "null"]):
        given = [f"cluster.node_mtbf_hours={mtbf}", f"checkpoint.async={saving}", f"cluster.gpu={gpu}"]
        given += [f"cluster.{of}_gb_per_second={speed}" for of in ("storage", "network")]
        job = load_job(CONFIGS / "llama3_8b_1node.yaml", [*given, *others])
        forecast = forecast_job(job)
        FitConsole(file=StringIO()).print(plan_table(plan_job(job), forecast))
        shares = [interval.shares for stage in forecast.stages for interval in stage.intervals]
        assert shares
        assert all(sum(share) == pytest.approx(1) for share in shares)


@pytest.mark.parametrize("field", ["node_mtbf_hours", "storage_gb_per_second", "network_gb_per_second"])
@pytest.mark.parametrize("value", ["1e308", "1e-320", ".inf"])
def test_numbers_with_which_nothing_can_be_reckoned_are_refused(field: str, value: str) -> None:
    with pytest.raises(UserError, match=f"cluster.{field}"):
        load_job(CONFIGS / "llama3_8b_1node.yaml", [f"cluster.{field}={value}"])
