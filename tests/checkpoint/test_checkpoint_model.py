"""A checkpoint alone gives the folder that the engine exports, to the bit, one parameter at a time."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from sft.checkpoint.checkpoint_model import CheckpointModel
from sft.checkpoint.export import export_model
from sft.checkpoint.local_storage import LocalStorage, checkpoint_path
from sft.checkpoint.rank_file import CheckpointReader
from sft.checkpoint.weight_comparison import differing_tensors
from sft.config import ModelConfig
from sft.engine.engine import Engine, Shard
from sft.engine.plain import PlainEngine
from sft.errors import UserError
from tests.checkpoint.exported import export_to, files_of, tensors_of, train_on
from tests.checkpoint.ranks import run_ranks
from tests.checkpoint.test_export import batch
from tests.conftest import TokenizerDir
from tests.model.tiny_checkpoints import write_checkpoint

FAMILIES = [
    ("llama", "bfloat16"),
    ("gpt2", "float32"),
    ("phi3", "bfloat16"),
    ("ernie4_5_moe", "bfloat16"),
    ("gemma3", "bfloat16"),
]


def saved(engine: Engine, folder: Path, size: int = 3) -> CheckpointReader:
    """The engine's state as the checkpoint of so many ranks."""
    whole = engine.local_state()

    def part(shard: Shard, rank: int) -> Shard:
        share = -(-shard.numel // size)
        start = min(rank * share, shard.numel)
        return Shard(shard.numel, start, shard.values[start : start + share])

    def save(rank: Any) -> None:
        state = {key: part(shard, rank.world.rank) for key, shard in whole.items()}
        saver = rank.saver(LocalStorage(folder))
        saver.save(2, state, {"num_updates": 2})
        assert saver.finish()
        saver.close()

    run_ranks(size, save)
    return CheckpointReader(checkpoint_path(folder, 2))


@pytest.mark.parametrize(("family", "dtype"), FAMILIES)
def test_the_folder_is_that_of_the_engine_to_the_bit(
    family: str, dtype: str, tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    """Tied weights, experts that are one tensor in the model, matrices that are split when they are saved."""
    base = write_checkpoint(family, tmp_path / "base", getattr(torch, dtype))
    engine = train_on(batch(), base, dtype, PlainEngine)
    expected = export_to(engine, tokenizer_dir("chatml"), tmp_path / "expected", dtype)
    with saved(engine, tmp_path / "checkpoints") as reader:
        model = CheckpointModel(ModelConfig(path=str(base)), str(base), reader, getattr(torch, dtype))
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir("chatml"))
        export_model(model, tokenizer, tmp_path / "found", getattr(torch, dtype), 1)
        assert differing_tensors(model, expected, getattr(torch, dtype)) == []
    assert files_of(tmp_path / "found") == files_of(expected)
    before, after = tensors_of(base), tensors_of(expected)
    assert any(not torch.equal(before[name], after[name]) for name in before), "nothing was trained"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and a checkpoint of it in bfloat16."""
    folder = tmp_path_factory.mktemp("small")
    base = write_checkpoint("llama", folder / "base", torch.bfloat16)
    saved(train_on(batch(), base, "bfloat16", PlainEngine), folder / "checkpoints").close()
    return base, checkpoint_path(folder / "checkpoints", 2)


def test_in_float32_it_holds_the_masters(small: tuple[Path, Path], tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    base, checkpoint = small
    with CheckpointReader(checkpoint) as reader:
        model = CheckpointModel(ModelConfig(path=str(base)), str(base), reader, torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir("chatml"))
        export_model(model, tokenizer, tmp_path / "found", torch.float32, 1)
        for name, tensor in tensors_of(tmp_path / "found").items():
            master = reader.read(f"{name}/master", 0, tensor.numel())
            assert torch.equal(tensor.flatten(), master), name
            assert not torch.equal(tensor, tensor.bfloat16().float()), "nothing behind the digits of bfloat16"


def test_one_parameter_is_in_memory_at_a_time(
    small: tuple[Path, Path], tokenizer_dir: TokenizerDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, checkpoint = small
    alive: list[int] = []
    read, references = CheckpointReader.read, []

    def watched(self: CheckpointReader, key: str, start: int, stop: int) -> torch.Tensor:
        values = read(self, key, start, stop)
        references.append(weakref.ref(values))
        alive.append(sum(reference() is not None for reference in references))
        return values

    monkeypatch.setattr(CheckpointReader, "read", watched)
    with CheckpointReader(checkpoint) as reader:
        model = CheckpointModel(ModelConfig(path=str(base)), str(base), reader, torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir("chatml"))
        export_model(model, tokenizer, tmp_path / "found", torch.bfloat16, 1)
    assert len(alive) > 10
    assert max(alive) == 1


def test_the_checkpoint_of_another_model_is_refused_by_name(small: tuple[Path, Path], tmp_path: Path) -> None:
    _, checkpoint = small
    other = write_checkpoint("qwen2", tmp_path / "other")
    with CheckpointReader(checkpoint) as reader, pytest.raises(UserError, match=r"not one of the model .*q_proj.bias"):
        CheckpointModel(ModelConfig(path=str(other)), str(other), reader, torch.bfloat16)


def test_numbers_beyond_float16_are_refused(small: tuple[Path, Path]) -> None:
    base, checkpoint = small

    class Large(CheckpointReader):
        def read(self, key: str, start: int, stop: int) -> torch.Tensor:
            return super().read(key, start, stop) + 1e6

    with Large(checkpoint) as reader:
        model = CheckpointModel(ModelConfig(path=str(base)), str(base), reader, torch.float16)
        with pytest.raises(UserError, match="65504"):
            model.parameter("model.norm.weight")


def test_another_row_of_the_head_is_named(
    small: tuple[Path, Path], tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    base, checkpoint = small
    with CheckpointReader(checkpoint) as reader:
        model = CheckpointModel(ModelConfig(path=str(base)), str(base), reader, torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir("chatml"))
        export_model(model, tokenizer, tmp_path / "found", torch.bfloat16, 1)
        tensors = tensors_of(tmp_path / "found")
        embedding = tensors["model.embed_tokens.weight"]
        embedding[[17, 42]] = embedding[[42, 17]]
        save_file(tensors, tmp_path / "found" / "model.safetensors", metadata={"format": "pt"})
        (text,) = differing_tensors(model, tmp_path / "found", torch.bfloat16)
    assert text == "model.embed_tokens.weight has other values in 2 of 640 rows: 17, 42"
