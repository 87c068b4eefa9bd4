"""The engine of one worker trains what ZeRO-3 trains, and each goes on from the other's checkpoint."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sft.checkpoint.local_storage import LocalStorage
from sft.checkpoint.saver import CheckpointSaver
from sft.config import CheckpointConfig, ModelConfig, SftConfig
from sft.engine.choice import choose_engine
from sft.engine.engine import NonFiniteError
from sft.engine.plain import PlainEngine
from sft.engine.single_process import SingleProcessEngine
from sft.errors import UserError
from sft.model.loading import load_model
from sft.model.loss import token_nll
from sft.optimizers import OPTIMIZERS
from sft.ranks.ranks import OneRank
from sft.world import World
from tests.checkpoint.exported import difference, export_to, run_config, saved_by_transformers, train_on
from tests.checkpoint.test_export import batch
from tests.conftest import TokenizerDir
from tests.distributed.launch import run_ranks
from tests.distributed.scenarios import build_loader, load, take_steps, whole_state
from tests.distributed.test_loading import in_two_files
from tests.model.tiny_checkpoints import write_checkpoint


def having(workload: dict[str, Any], section: str, **fields: Any) -> dict[str, Any]:
    content = copy.deepcopy(workload["config"])
    content[section] = {**content.get(section, {}), **fields}
    return {**workload, "config": content}


def with_optimizer(workload: dict[str, Any], **fields: Any) -> dict[str, Any]:
    [stage] = workload["config"]["stages"]
    return {**workload, "config": {**workload["config"], "stages": [{**stage, "optimizer": fields}]}}


def plain(settings: dict[str, Any], awaits_state: bool = False) -> tuple[PlainEngine, SftConfig]:
    config = SftConfig.model_validate(settings["config"])
    return PlainEngine(config, config.stages[0].optimizer, config.model.path, OneRank(), awaits_state), config


def steps_of(settings: dict[str, Any], last: int, packs_per_micro_batch: int | None = None) -> list[list[float]]:
    engine, config = plain(settings)
    return take_steps(engine, config, build_loader(settings, World(), packs_per_micro_batch), 0, last)


def test_it_follows_the_pinned_trajectory(workload: dict[str, Any], trajectory: list[list[float]]) -> None:
    assert steps_of(workload, 6, packs_per_micro_batch=1) == [pytest.approx(step, rel=1e-5) for step in trajectory]
    at_once = steps_of(having(workload, "train", activation_checkpointing=True), 2, packs_per_micro_batch=6)
    assert at_once == [pytest.approx(step, rel=1e-5) for step in trajectory[:2]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_rank_of_zero3_computes_the_same(workload: dict[str, Any], dtype: str) -> None:
    """In float32 to the last bits; in bfloat16 too, since both add up gradients of micro-batches in float32."""
    settings = having(with_optimizer(workload, lr=1e-3, max_grad_norm=0.5), "model", dtype=dtype)
    [found] = run_ranks(1, "with_changes", {**settings, "changes": [{}]})
    assert found == [pytest.approx(step, rel=1e-6 if dtype == "float32" else 1e-3) for step in steps_of(settings, 2)]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param("adamw", "float32", marks=pytest.mark.long),
        ("lion", "float32"),
        pytest.param("adamw", "bfloat16", marks=pytest.mark.long),
    ],
)
def test_it_resumes_exactly_and_zero3_goes_on_from_its_checkpoint(
    name: str, dtype: str, workload: dict[str, Any], tmp_path: Path
) -> None:
    """`test_resume.py` and `test_optimizers.py` go the other way."""
    saved_at, num_steps = 1, 3
    settings = having(with_optimizer(workload, name=name, lr=1e-3, weight_decay=0.1), "model", dtype=dtype)
    settings |= {"folder": str(tmp_path), "saved_at": saved_at, "num_steps": num_steps}
    engine, config = plain(settings)
    loader = build_loader(settings, World())
    take_steps(engine, config, loader, 0, saved_at)
    saver = CheckpointSaver(
        LocalStorage(tmp_path / "checkpoints"), engine.ranks, 1, CheckpointConfig(max_failed_saves=1), print
    )
    saver.save(saved_at, engine.local_state(), {"num_updates": saved_at})
    steps = take_steps(engine, config, loader, saved_at, num_steps)
    assert saver.finish()
    saver.close()
    kinds = ("master", *OPTIMIZERS[name].means)
    torch.save({kind: whole_state(engine, kind) for kind in kinds}, tmp_path / "state.pt")
    resumed = run_ranks(2, "resume", settings)
    assert resumed["steps"] == [pytest.approx(step, rel=1e-5 if dtype == "float32" else 1e-2) for step in steps]
    again, _ = plain(settings, awaits_state=True)
    load(again, tmp_path / "checkpoints")
    assert take_steps(again, config, loader, saved_at, num_steps) == steps, "to the bit"


@pytest.mark.parametrize(("family", "dtype"), [("gemma3", "bfloat16"), ("ernie4_5_moe", "float32"), ("two", "float32")])
def test_what_it_trains_is_exported_as_transformers_saves_it_and_resumed_without_reading_it(
    family: str, dtype: str, tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    """A tied model with eyes that are not trained; merged experts, and a bias that is not; a tie stored twice."""
    base = write_checkpoint("llama" if family == "two" else family, tmp_path / "base", getattr(torch, dtype))
    if family == "two":
        in_two_files(base)
    engine, oracle = (train_on(batch(), base, dtype, build) for build in (PlainEngine, SingleProcessEngine))
    found, folder = whole_state(engine, "master"), tmp_path / "saved"
    assert torch.allclose(found, whole_state(oracle, "master"), rtol=0, atol=1e-3)
    exported = export_to(engine, tokenizer_dir("chatml"), tmp_path / "exported", dtype)
    assert difference(exported, saved_by_transformers(engine, base, dtype, folder)) is None
    frozen = {name for name, parameter in engine.hf_model.named_parameters() if not parameter.requires_grad}
    assert bool(frozen) == (family != "two")

    state = {key: shard.values.clone() for key, shard in engine.local_state().items()}
    config = run_config(base, dtype)
    again = PlainEngine(config, config.stages[0].optimizer, str(base), OneRank(), awaits_state=True)
    read = {name for name, parameter in again.hf_model.named_parameters() if not parameter.isnan().all()}
    # transformers compares two stored tensors before it ties them.
    assert read == frozen | ({"model.embed_tokens.weight"} if family == "two" else set())
    again.load_local_state(lambda key, start, stop: state[key][start:stop], 2)
    expected = engine.hf_model.state_dict()
    assert all(torch.equal(values, expected[name]) for name, values in again.hf_model.state_dict().items())
    assert all(torch.equal(shard.values, state[key]) for key, shard in again.local_state().items())
    assert list(dict(again.hf_model.named_parameters())) == list(dict(engine.hf_model.named_parameters()))


def test_each_tensor_goes_straight_to_the_device(tiny_model_dir: Path) -> None:
    model = ModelConfig(path=str(tiny_model_dir))
    loaded = load_model(model, model.path, torch.bfloat16, torch.device("meta"))
    assert {tensor.device.type for tensor in (*loaded.parameters(), *loaded.buffers())} == {"meta"}


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_a_step_that_is_not_finite_leaves_all_as_it_is(workload: dict[str, Any], dtype: str) -> None:
    settings = having(workload, "model", dtype=dtype)
    engine, config = plain(settings)
    loader = build_loader(settings, World())
    take_steps(engine, config, loader, 0, 1)
    before = {key: shard.values.clone() for key, shard in engine.local_state().items()}
    spoil = engine._module.register_forward_hook(lambda module, given, nll: nll * float("nan"))
    with pytest.raises(NonFiniteError, match="the loss is nan") as caught:
        take_steps(engine, config, loader, 1, 2)
    spoil.remove()
    assert caught.value.ranks == (0,)
    spoil = engine._module.register_forward_hook(
        lambda module, given, nll: nll.register_hook(lambda gradient: gradient * float("inf")) and None
    )
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        take_steps(engine, config, loader, 1, 2)
    spoil.remove()
    assert all(torch.equal(shard.values, before[key]) for key, shard in engine.local_state().items())
    straight, _ = plain(settings)
    take_steps(straight, config, loader, 0, 1)
    assert take_steps(engine, config, loader, 1, 3) == take_steps(straight, config, loader, 1, 3)


def test_a_measurement_between_steps_changes_nothing(workload: dict[str, Any]) -> None:
    engine, config = plain(workload)
    loader = build_loader(workload, World())
    steps = take_steps(engine, config, loader, 0, 1)
    assert engine.segment_sums(loader.micro_batches(0)[0], [token_nll]).sum() > 0
    assert steps + take_steps(engine, config, loader, 1, 2) == steps_of(workload, 2)


def test_auto_is_plain_where_there_is_nothing_to_split(workload: dict[str, Any]) -> None:
    def choice(num_ranks: int, engine: str = "auto", **deepspeed: Any) -> str:
        settings = having(having(workload, "train", engine=engine), "deepspeed", **deepspeed)
        return choose_engine(SftConfig.model_validate(settings["config"]), num_ranks)

    assert [choice(1), choice(2), choice(1, "zero3"), choice(1, "plain")] == ["plain", "zero3", "zero3", "plain"]
    assert choice(1, offload_optimizer="cpu") == choice(1, offload_parameters="cpu") == "zero3"
    with pytest.raises(UserError, match=r"plain is an engine for one worker, and there are 2"):
        choice(2, "plain")
