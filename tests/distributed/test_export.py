"""Under ZeRO-3 the export is that of the plain engine, and what is not trained is the original's, to the byte."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from sft.checkpoint.checkpoint_model import CheckpointModel
from sft.checkpoint.export import export_model
from sft.checkpoint.local_storage import checkpoint_path
from sft.checkpoint.rank_file import CheckpointReader
from sft.config import ModelConfig, SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.engine.single_process import SingleProcessEngine
from sft.world import World
from tests.checkpoint.exported import files_of
from tests.checkpoint.test_export import mixed_dtypes, tensors_of
from tests.distributed.launch import run_ranks
from tests.distributed.scenarios import build_loader, take_steps
from tests.model.tiny_checkpoints import write_checkpoint

LONG = pytest.mark.long
IN_FLOAT32 = ("mllama", pytest.param("mixtral", marks=LONG))
IN_BFLOAT16 = (pytest.param("gemma3", marks=LONG), "ernie4_5_moe", pytest.param("deepseek_v3", marks=LONG))
Exported = Callable[[str, str], tuple[str, str, dict[str, Any]]]


@pytest.fixture(scope="module")
def exported(workload: dict[str, Any], tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """From a family and a dtype: its checkpoint, the export of two ranks of ZeRO-3 after two steps, what they tell."""
    folder = tmp_path_factory.mktemp("families")

    @cache
    def export(family: str, dtype: str) -> tuple[str, str, dict[str, Any]]:
        base = write_checkpoint(family, folder / f"{family}-{dtype}")
        if dtype == "bfloat16":
            mixed_dtypes(base)
        found = str(folder / f"{family}-{dtype}-found")
        settings = {**workload, "model": (str(base), dtype, found), "tokenizer": str(tiny_model_dir)}
        return str(base), found, run_ranks(2, "export_family", settings)

    return export


@pytest.mark.parametrize("family", IN_FLOAT32)
def test_the_export_is_that_of_the_plain_engine(
    family: str, exported: Exported, workload: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    path, final, result = exported(family, "float32")
    content = copy.deepcopy(workload["config"])
    content["model"] |= {"path": path, "dtype": "float32"}
    config = SftConfig.model_validate(content)
    engine = SingleProcessEngine(config, config.stages[0].optimizer, path)
    steps = take_steps(engine, config, build_loader(workload, World()), 0, 2)
    assert result["steps"] == [pytest.approx(step, rel=1e-3) for step in steps]
    assert result["held"] == sorted({key.rpartition("/")[0] for key in engine.local_state()})
    tokenizer = load_tokenizer(config.model.model_copy(update={"tokenizer": str(tiny_model_dir)}))
    export_model(engine, tokenizer, tmp_path / "plain", torch.float32, 1)
    ours, plain, before = tensors_of(Path(final)), tensors_of(tmp_path / "plain"), tensors_of(Path(path))
    assert set(ours) == set(plain)
    for name, tensor in plain.items():
        if torch.equal(tensor, before[name]):
            assert torch.equal(ours[name], tensor), name
        else:
            # AdamW's first updates have the size of the learning rate, whatever the gradient's.
            assert (ours[name] - tensor).abs().mean() < 2e-3, name


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("mllama", "float32"),
        pytest.param("mixtral", "float32", marks=LONG),
        pytest.param("gemma3", "bfloat16", marks=LONG),
        ("ernie4_5_moe", "bfloat16"),
        pytest.param("deepseek_v3", "bfloat16", marks=LONG),
    ],
)
def test_from_the_checkpoint_without_an_engine_the_folder_is_the_same_to_the_bit(
    family: str, dtype: str, exported: Exported, tiny_model_dir: Path, tmp_path: Path
) -> None:
    path, final, _ = exported(family, dtype)
    model = ModelConfig(path=path, tokenizer=str(tiny_model_dir), dtype=dtype)
    with CheckpointReader(checkpoint_path(Path(f"{final}-checkpoints"), 2)) as reader:
        numbers = getattr(torch, dtype)
        saved = CheckpointModel(model, path, reader, numbers)
        export_model(saved, load_tokenizer(model), tmp_path / "found", numbers, 1)
    assert files_of(tmp_path / "found") == files_of(Path(final))


@pytest.mark.parametrize("family", IN_BFLOAT16)
def test_what_is_not_trained_keeps_its_bits_and_its_dtype(family: str, exported: Exported) -> None:
    path, final, _ = exported(family, "bfloat16")
    before, after = tensors_of(Path(path)), tensors_of(Path(final))
    assert set(before) == set(after)
    kept = {n for n in before if before[n].dtype == after[n].dtype and torch.equal(before[n], after[n])}
    # transformers keeps Ernie's router in float32.
    changed = set(before) - kept
    assert {after[name].dtype for name in changed if not name.endswith("mlp.gate.weight")} == {torch.bfloat16}
    wanted = {name for name in before if before[name].dtype != torch.bfloat16}
    assert wanted
    assert wanted <= kept


@pytest.mark.long
def test_a_run_with_parameters_that_are_not_trained_resumes_equal_bit_for_bit(
    workload: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Its checkpoints hold nothing of them: they come from the model that the stage starts from."""
    base = write_checkpoint("gemma3", tmp_path / "base")
    content = copy.deepcopy(workload["config"])
    content["model"] |= {"path": str(base), "tokenizer": str(tiny_model_dir)}
    settings = {**workload, "config": content, "folder": str(tmp_path), "saved_at": 1, "num_steps": 3}
    straight = run_ranks(2, "train_save_export", settings)
    resumed = run_ranks(2, "resume", settings)
    assert resumed["steps"] == straight["steps"][1:]
    assert resumed["differences"] == {"master": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0}
