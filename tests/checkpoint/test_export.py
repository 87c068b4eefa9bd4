"""The exported folder is what transformers itself would save; what was not trained is as it was, to the byte."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sft.checkpoint import export
from sft.config import ModelConfig
from sft.data.collate import Batch, collate
from sft.data.rendering.adaptation import adapt, derive_traits
from sft.data.rendering.chat_template import TemplateRenderer, load_tokenizer
from sft.data.rendering.saved_template import saved_template
from sft.engine.engine import Engine
from sft.engine.single_process import SingleProcessEngine
from sft.schema import Message, Pack
from tests.checkpoint.exported import (
    difference,
    export_to,
    run_config,
    saved_by_transformers,
    tensors_of,
    train_on,
)
from tests.conftest import TokenizerDir
from tests.data.conversations import TOOLS, conversation
from tests.model.tiny_checkpoints import CHECKPOINTS, MULTIMODAL, write_checkpoint


def batch() -> Batch:
    """Three examples in a pack, of tokens that no picture stands for."""
    rng = np.random.default_rng(0)
    starts = np.array([0, 9, 30, 40])
    mask = np.ones(40, dtype=bool)
    mask[starts[:-1]] = False
    return collate([Pack(0, np.arange(3), rng.integers(10, 500, 40), mask, starts)])


def train(model: Path, dtype: str) -> Engine:
    return train_on(batch(), model, dtype)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, "float32") for family in CHECKPOINTS), ("gemma3", "bfloat16"), ("ernie4_5_moe", "bfloat16")],
)
def test_the_folder_is_what_transformers_would_save_of_the_same_weights(
    family: str, dtype: str, tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    base = write_checkpoint(family, tmp_path / "base", getattr(torch, dtype))
    engine = train(base, dtype)
    found = export_to(engine, tokenizer_dir("chatml"), tmp_path / "found", dtype)
    expected = saved_by_transformers(engine, base, dtype, tmp_path / "expected")
    assert difference(found, expected) is None
    ours, before = tensors_of(found), tensors_of(base)
    assert any(not torch.equal(ours[name], before[name]) for name in ours), "nothing was trained"


@pytest.mark.parametrize("family", [*MULTIMODAL, "ernie4_5_moe", "deepseek_v3"])
def test_what_text_does_not_go_through_is_exported_bit_for_bit_in_its_own_dtype(
    family: str, tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    """In a run in bfloat16, from files in which other parts have other dtypes; and in a second stage again."""
    base = write_checkpoint(family, tmp_path / "base")
    mixed_dtypes(base)
    before = tensors_of(base)
    engine = train(base, "bfloat16")
    frozen = {name for name, parameter in engine.hf_model.named_parameters() if not parameter.requires_grad}
    assert frozen.isdisjoint(key.rpartition("/")[0] for key in engine.local_state())
    assert bool(frozen) == (family != "deepseek_v3")  # it has a buffer
    stage = export_to(engine, tokenizer_dir("chatml"), tmp_path / "stage-1", "bfloat16")
    engine = train(stage, "bfloat16")
    last = export_to(engine, tokenizer_dir("chatml"), tmp_path / "stage-2", "bfloat16")
    for folder in (stage, last):
        after = tensors_of(folder)
        kept = [n for n in before if before[n].dtype == after[n].dtype and torch.equal(before[n], after[n])]
        changed = sorted(set(before) - set(kept))
        # transformers keeps Ernie's router in float32.
        assert {after[n].dtype for n in changed if not n.endswith("mlp.gate.weight")} == {torch.bfloat16}
        if family in MULTIMODAL:
            assert all(not _is_of_a_tower(name) for name in changed), changed
            assert any(_is_of_a_tower(name) for name in kept)
        else:
            assert [name for name in kept if "correction_bias" in name]
        assert len(changed) > 10


def mixed_dtypes(folder: Path) -> None:
    """Towers and routers' biases as they come: in float16 and float32; the rest in bfloat16."""
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if "correction_bias" not in name:
            tensors[name] = tensor.to(torch.float16 if _is_of_a_tower(name) else torch.bfloat16)
    save_file(tensors, file, metadata={"format": "pt"})


def _is_of_a_tower(name: str) -> bool:
    return any(part in name for part in ("vision", "visual", "multi_modal_projector", "cross_attn"))


def test_several_files_with_an_index_hold_the_same_tensors(
    tokenizer_dir: TokenizerDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experts of a layer may lie in several files."""
    base = write_checkpoint("mixtral", tmp_path / "base")
    engine = train(base, "float32")
    whole = tensors_of(export_to(engine, tokenizer_dir("chatml"), tmp_path / "whole", "float32"))
    monkeypatch.setattr(export, "MAX_FILE_BYTES", 8000)
    parts = export_to(engine, tokenizer_dir("chatml"), tmp_path / "parts", "float32")
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 5
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(parts / file)[name], whole[name])
    assert set(index["weight_map"]) == set(whole)
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in whole.values())
    loaded = type(engine.hf_model).from_pretrained(parts)
    assert torch.equal(loaded.lm_head.weight, engine.hf_model.lm_head.weight)


def test_a_folder_that_sees_keeps_what_its_processor_needs(tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    base = write_checkpoint("gemma3", tmp_path / "base")
    shutil.copytree(tokenizer_dir("chatml"), base, dirs_exist_ok=True)
    processor = {"preprocessor_config.json": {"image_processor_type": "Gemma3ImageProcessor", "do_resize": True}}
    processor["processor_config.json"] = {"processor_class": "Gemma3Processor", "image_seq_length": 4}
    for name, content in processor.items():
        (base / name).write_text(json.dumps(content))
    (base / "chat_template.json").write_text(json.dumps({"chat_template": "of old"}))
    stage = export_to(train(base, "float32"), tokenizer_dir("chatml"), tmp_path / "stage", "float32")
    last = export_to(train(stage, "float32"), tokenizer_dir("chatml"), tmp_path / "last", "float32")
    for name, content in processor.items():
        assert json.loads((last / name).read_text()) == content
    # A processor would take the old file before the one that was trained with.
    assert not (last / "chat_template.json").exists()
    trained = AutoTokenizer.from_pretrained(tokenizer_dir("chatml"))
    assert (last / "chat_template.jinja").read_text() == saved_template(trained)
    config = json.loads((last / "config.json").read_text())
    assert config["architectures"] == ["Gemma3ForConditionalGeneration"]
    assert config["vision_config"]["hidden_size"] == MULTIMODAL["gemma3"]["vision_config"]["hidden_size"]


def test_the_folder_given_tools_writes_the_prompt_that_was_trained(tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    base = write_checkpoint("llama", tmp_path / "base")
    config = run_config(base, "float32")
    engine = SingleProcessEngine(config, config.stages[0].optimizer, str(base))
    for template in ("model_role", "think"):
        folder = export_to(engine, tokenizer_dir(template), tmp_path / template, "float32")
        trained, found = (
            load_tokenizer(ModelConfig(path=str(tokenizer_dir(template)))),
            AutoTokenizer.from_pretrained(folder),
        )
        render = TemplateRenderer(trained)
        asked, _ = adapt(conversation(Message("user", "river?"), tools=TOOLS), derive_traits(render))
        prompt = found.apply_chat_template(
            [{"role": "user", "content": "river?"}], tools=TOOLS, tokenize=False, add_generation_prompt=True
        )
        assert "look_up" in prompt
        assert prompt == render(asked.messages, asked.tools, for_generation=True)


def generation_config(
    tokenizer: Path, tmp_path: Path, original: dict[str, Any] | None, stops: tuple[str, ...]
) -> tuple[dict[str, Any], Any]:
    """The generation config and the tokenizer of an export; `stops` are learned."""
    base = write_checkpoint("llama", tmp_path / "base")
    (base / "generation_config.json").unlink()
    if original is not None:
        (base / "generation_config.json").write_text(json.dumps(original))
    config = run_config(base, "float32")
    engine = SingleProcessEngine(config, config.stages[0].optimizer, str(base))
    ids = AutoTokenizer.from_pretrained(tokenizer).convert_tokens_to_ids(list(stops))
    folder = export_to(engine, tokenizer, tmp_path / "found", "float32", stop_ids=ids)
    return json.loads((folder / "generation_config.json").read_text()), AutoTokenizer.from_pretrained(folder)


def test_the_learned_stop_is_beside_the_old_ones_and_what_the_tokenizer_says(
    tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    """A base model that is tuned with ChatML; the settings that transformers would not save are kept."""
    base = tokenizer_dir(None)  # its end of text is <|endoftext|>
    original = {"eos_token_id": 0, "temperature": 0.6, "do_sample": False, "top_k": 17}
    found, tokenizer = generation_config(base, tmp_path, original, ("<|im_end|>", "<|eot_id|>"))
    assert found == {**original, "eos_token_id": [0, 2, tokenizer.convert_tokens_to_ids("<|eot_id|>")]}
    assert tokenizer.eos_token == "<|im_end|>"
    config = json.loads((tmp_path / "found" / "config.json").read_text())
    assert config["eos_token_id"] == tokenizer.eos_token_id


def test_a_stop_that_is_known_is_not_named_twice_and_the_tokenizer_stays(
    tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    found, tokenizer = generation_config(
        tokenizer_dir("headers"), tmp_path, {"eos_token_id": [0, 8]}, ("<|eot_id|>", "<|end_header_id|>")
    )
    eot, end_header = tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|end_header_id|>"])
    assert found["eos_token_id"] == [0, 8, *(i for i in (eot, end_header) if i not in (0, 8))]
    assert tokenizer.eos_token == "<|eot_id|>"


def test_without_a_generation_config_one_is_written(tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    found, _ = generation_config(tokenizer_dir("chatml"), tmp_path, None, ("<|im_end|>",))
    assert found["eos_token_id"] == [2]  # that of config.json, which is <|im_end|> too


def test_what_an_export_that_was_killed_has_left_is_removed_by_the_next(
    tiny_model_dir: Path, tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    left = tmp_path / ".found.attempt-0007.partial"
    left.mkdir()
    (left / "model.safetensors").write_bytes(bytes(100))
    export_to(train(tiny_model_dir, "float32"), tokenizer_dir("chatml"), tmp_path / "found", "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["found"]
