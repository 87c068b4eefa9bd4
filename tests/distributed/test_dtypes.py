"""A model has the dtypes that transformers gives it: with bfloat16, some parameters and buffers stay in float32.

Routers of experts, what corrects them, decays of states and others, as their classes say. ZeRO-3 computes with them as
the plain engine does.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CONFIG_MAPPING

from sft.config import ModelConfig, SftConfig
from sft.engine.optimizers import decay_groups
from sft.engine.plain import PlainEngine
from sft.model.loading import load_plain_model
from sft.model.tiny_model import tiny_config, tiny_model
from sft.ranks.ranks import OneRank
from sft.world import World
from tests.distributed.launch import run_ranks
from tests.distributed.loaded import compare_with_whole
from tests.distributed.scenarios import build_loader, take_steps, whole_state
from tests.forked_ranks import logs_of, zygote
from tests.model.sweep import GIVEN, LAYOUTS, TABLE, read_table
from tests.model.tiny_checkpoints import write_checkpoint

FAMILIES = {
    "ernie4_5_moe": True,  # a router that is trained, and its bias, a parameter that is not
    "olmo_hybrid": True,  # a parameter that is made in float32
    "lfm2_moe": False,  # a buffer that is made in float32
    "ctrl": False,  # a table that is made anew, in float32, when it is loaded
}
"""By name: whether a parameter stays in float32."""
UNREAD = "deepseek_v4"
"""Its last norm, which transformers renames when it loads the model in parts, and then does not find."""
SMALL = {
    **GIVEN,
    "olmo_hybrid": {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]},
    "deepseek_v4": {"num_hidden_layers": 2},
}
IN_PARTS_NOT = {"marian", "pegasus", "rwkv", "xlstm"}
"""Trained families that transformers cannot load in parts at all."""
SAVED_AT, NUM_STEPS = 2, 3
ALL_REDUCE = "stage3_use_all_reduce_for_fetch_params"


def write_tiny(family: str, folder: Path) -> Path:
    """With biases that are not zero, and no number that bfloat16 can hold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tiny_model(tiny_config(CONFIG_MAPPING[family](**SMALL.get(family, {}))), None)
        with torch.no_grad():
            for values in model.state_dict().values():
                if values.is_floating_point():
                    values += 0.01 * torch.randn_like(values)
    model.save_pretrained(folder)
    return folder


def compared(workload: dict[str, Any], folders: list[Path], out: Path, size: int = 2) -> list[dict[str, Any]]:
    """What each rank found, by folder."""
    arguments = (workload["config"] | bfloat16(workload), [str(folder) for folder in folders], str(out))
    codes = zygote().start(compare_with_whole, size, out / "rank", *arguments, longest_seconds=1500)
    assert not any(codes), logs_of(out / "rank")
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(size)]


def bfloat16(workload: dict[str, Any], path: str | None = None) -> dict[str, Any]:
    model = workload["config"]["model"]
    return {"model": {**model, "dtype": "bfloat16", "path": path or model["path"]}}


@pytest.fixture(scope="module")
def families(
    request: pytest.FixtureRequest, workload: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """What the ranks found of each family; with `--all-families` also of all that are trained."""
    every, folder = request.config.getoption("--all-families"), tmp_path_factory.mktemp("families")
    trained = [row.family for row in read_table().values() if row.layout in LAYOUTS]
    names = [*dict.fromkeys([*FAMILIES, UNREAD, *(trained if every else ())])]
    folders = [write_tiny(name, folder / name) for name in names]
    ranks = compared(workload, folders, folder, 1 if every else 2)
    return {name: [found[str(path)] for found in ranks] for name, path in zip(names, folders, strict=True)}


@pytest.mark.long
def test_both_engines_hold_what_transformers_holds(families: dict[str, list[dict[str, Any]]]) -> None:
    """To the bit, each parameter and buffer."""
    for name, ranks in families.items():
        for found in ranks:
            assert (name, found["plain"]) == (name, [])
            assert (name, found["zero3"]) == (name, None if name in {UNREAD, *IN_PARTS_NOT} else [])
            assert bool(found["in float32"]) == FAMILIES.get(name, bool(found["in float32"])), name


@pytest.mark.long
def test_the_docs_name_the_families_with_trained_parameters_in_float32(
    families: dict[str, list[dict[str, Any]]],
) -> None:
    page = TABLE.read_text(encoding="utf-8").partition("## What stays in float32\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ")[0] for line in page.splitlines() if line.startswith("| ")][1:]
    listed = {name for row in rows for name in row.split(", ")}
    found = {name for name, [one, *_] in families.items() if one["trained in float32"]}
    assert found - {UNREAD} == listed & families.keys()
    assert all(name in page for name in IN_PARTS_NOT)


@pytest.mark.long
def test_what_is_not_read_in_parts_is_refused_by_name(families: dict[str, list[dict[str, Any]]]) -> None:
    for found in families[UNREAD]:
        assert "model.norm.weight (its values are not read). Train on one worker" in found["refused"]


@pytest.fixture(scope="module")
def settings(workload: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kept")
    base = write_checkpoint("ernie4_5_moe", folder / "base")
    content = copy.deepcopy(workload["config"]) | bfloat16(workload, str(base))
    content["model"]["tokenizer"] = workload["config"]["model"]["path"]
    sizes = {"saved_at": SAVED_AT, "num_steps": NUM_STEPS, "packs_together": 1}  # else it rounds by what is together
    return {**workload, "config": content, "folder": str(folder), **sizes}


@pytest.fixture(scope="module")
def straight(settings: dict[str, Any]) -> dict[str, Any]:
    trained: dict[str, Any] = run_ranks(2, "train_save_export", settings)
    return trained


@pytest.fixture(scope="module")
def plain(settings: dict[str, Any]) -> tuple[PlainEngine, list[list[float]]]:
    config = SftConfig.model_validate(settings["config"])
    engine = PlainEngine(config, config.stages[0].optimizer, config.model.path, OneRank())
    return engine, take_steps(engine, config, build_loader(settings, World()), 0, NUM_STEPS)


def test_zero3_trains_what_the_plain_engine_trains(
    settings: dict[str, Any], straight: dict[str, Any], plain: tuple[PlainEngine, list[list[float]]]
) -> None:
    engine, steps = plain
    assert straight["steps"] == [pytest.approx(step, rel=1e-5) for step in steps]
    state = torch.load(Path(settings["folder"], "state.pt"), weights_only=True)
    for kind, values in state.items():
        assert torch.allclose(values, whole_state(engine, kind), rtol=1e-3, atol=1e-6), kind


def test_a_checkpoint_goes_on_equal_to_the_bit(settings: dict[str, Any], straight: dict[str, Any]) -> None:
    again = run_ranks(2, "resume", settings)
    assert again["steps"] == straight["steps"][SAVED_AT:]
    assert again["differences"] == {"master": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0}


@pytest.mark.long
def test_a_checkpoint_goes_on_with_another_number_of_ranks(settings: dict[str, Any], straight: dict[str, Any]) -> None:
    more = run_ranks(3, "resume", settings)
    assert more["steps"] == [pytest.approx(step, rel=1e-4) for step in straight["steps"][SAVED_AT:]]


def test_the_next_stage_starts_from_the_numbers_of_the_optimizer(
    settings: dict[str, Any], straight: dict[str, Any], tmp_path: Path
) -> None:
    """The export holds them, with all digits, and both engines read all of these."""
    folder = Path(settings["folder"], "model")
    [file] = folder.glob("*.safetensors")
    exported, [name, *_] = load_file(file), [n for n in load_file(file) if n.endswith("mlp.gate.weight")]
    assert exported[name].dtype == torch.float32
    assert not torch.equal(exported[name], exported[name].bfloat16().float())
    whole = load_plain_model(ModelConfig(path=str(folder)), str(folder), torch.bfloat16)
    assert torch.equal(whole.get_parameter(name), exported[name])
    for found in compared(settings, [folder], tmp_path):
        assert (found[str(folder)]["plain"], found[str(folder)]["zero3"]) == ([], [])


@pytest.mark.long
def test_parameters_in_host_memory_and_the_smallest_buffers_change_nothing(
    settings: dict[str, Any], straight: dict[str, Any]
) -> None:
    extra = {"sub_group_size": 3000, "stage3_param_persistence_threshold": 0, "stage3_max_live_parameters": 0}
    changes = [{"deepspeed": {"offload_optimizer": "cpu", "offload_parameters": "cpu"}}]
    changes += [{"deepspeed": {"extra": {"zero_optimization": extra}}}]
    for steps in run_ranks(2, "with_changes", {**settings, "changes": changes}):
        assert steps == [pytest.approx(step, rel=1e-5) for step in straight["steps"][:2]]


@pytest.mark.long
def test_copies_of_parameters_change_nothing(settings: dict[str, Any], straight: dict[str, Any]) -> None:
    changes = [{"deepspeed": {"hpz_partition_size": 2}}]
    [steps] = run_ranks(4, "with_changes", {**settings, "changes": changes})
    assert steps == [pytest.approx(step, rel=1e-5) for step in straight["steps"][:2]]


def test_the_setting_with_which_two_dtypes_cannot_be_gathered_is_refused(settings: dict[str, Any]) -> None:
    content = {**settings["config"], "deepspeed": {"extra": {"zero_optimization": {ALL_REDUCE: True}}}}
    said = run_ranks(2, "refused", {**settings, "config": content})
    assert f"{ALL_REDUCE}: the model has parameters that stay in float32 (model.layers.1.mlp.gate.weight)" in said


def test_a_group_has_one_dtype_and_the_narrow_ones_come_first() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.bfloat16), nn.LayerNorm(2))
    groups = [
        ([(p.dtype, p.ndim) for p in group["params"]], group["weight_decay"])
        for group in decay_groups(model, 0.1, lambda p: p.shape)
    ]
    narrow, wide = torch.bfloat16, torch.float32
    expected = [([(narrow, 2)], 0.1), ([(narrow, 1)], 0.0), ([(wide, 2)], 0.1), ([(wide, 1)] * 3, 0.0)]
    assert groups == expected
