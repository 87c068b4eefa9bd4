"""What is said of a model before a machine is held, where only a part of it is on this machine."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sft.config import ModelConfig
from sft.errors import UserError
from sft.model.first_look import FirstLook, look_at
from sft.model.loading import load_model, load_plain_model
from sft.model.loss import SupervisedNll
from sft.model.packing_probe import probe_batch
from tests.conftest import TokenizerDir
from tests.model.tiny_checkpoints import MULTIMODAL, write_checkpoint

CHUNKED = {"llama4"}
"""Their attention ends at the borders of chunks, which packs do not have."""


def look(path: Path, max_len_tokens: int = 512, is_whole: bool = False) -> FirstLook:
    return look_at(ModelConfig(path=str(path)), "auto", max_len_tokens, is_whole)


def test_a_config_by_itself_will_do_and_its_weights_are_noted(tmp_path: Path) -> None:
    write_checkpoint("llama", tmp_path / "whole")
    for name in ("config.json", "llama.json"):
        (tmp_path / "alone").mkdir(exist_ok=True)
        file = shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "alone" / name)
        (note,) = look(Path(file)).notes
        assert note == f"model: the weights of {file} are not on this machine. The training needs them."
    assert len(look(tmp_path / "alone", 600).notes) == 2, "and that examples are longer than what it was made for"
    with pytest.raises(UserError, match="has no weights"):
        look(tmp_path / "alone", is_whole=True)


def test_examples_longer_than_the_table_of_positions_are_refused_by_the_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2, "n_positions": 256}))
    assert look(tmp_path, 256).layout == "packed"
    with pytest.raises(UserError, match=r"data\.max_len_tokens: 257 is more than the 256 positions"):
        look(tmp_path, 257)


@pytest.mark.parametrize(
    "asked", [{"return_dict": False}, {"attn_implementation": "flash_attention_2"}, {"output_attentions": True}]
)
def test_what_a_config_says_of_its_use_is_chosen_here(asked: dict[str, Any], tmp_path: Path) -> None:
    base = write_checkpoint("llama", tmp_path)
    plain = losses(base)
    content = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(content | asked))
    assert look(base) == FirstLook("packed", None, [])
    assert torch.equal(losses(base), plain)


def losses(base: Path) -> torch.Tensor:
    """The nll of a packed batch, and by the model as it is generated with."""
    model = ModelConfig(path=str(base))
    batch = probe_batch(range(8, 90), "packed")
    module = SupervisedNll(load_model(model, str(base), torch.float32), chunk_tokens=64)
    with torch.no_grad():
        alone = load_plain_model(model, str(base), torch.float32)(batch.input_ids_BT).logits
        return torch.cat([module(batch), alone.flatten()])


@pytest.mark.parametrize("content", ["[1]", "{", '"text"', "null"])
def test_a_generation_config_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    base = write_checkpoint("llama", tmp_path)
    (base / "generation_config.json").write_text(content)
    with pytest.raises(UserError, match=r"generation.config"):
        look(base)


def test_a_small_form_whose_tables_are_large_is_not_made(tmp_path: Path) -> None:
    config = {"model_type": "gptj", "n_positions": 10**8, "n_layer": 1, "n_embd": 64, "n_head": 4, "rotary_dim": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "bytes of tables" in str(look(tmp_path).reason)


def test_a_class_that_is_unknown_here_is_left_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    found = look(tmp_path)
    assert "the run tries it at its start" in str(found.reason)


def test_weights_that_are_here_are_held_against_the_class(tmp_path: Path) -> None:
    base = write_checkpoint("qwen2", tmp_path)
    assert look(base) == FirstLook("packed", None, [])
    tensors = load_file(base / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"missing:\n    lm_head\.weight"):
        look(base)


def test_a_tokenizer_that_is_here_has_no_more_tokens_than_the_model(
    tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 96}))
    model = ModelConfig(path=str(tmp_path), tokenizer=str(tokenizer_dir("chatml")))
    with pytest.raises(UserError, match="but the model has 96 embeddings"):
        look_at(model, "auto", 512, is_whole=False)


def test_a_token_behind_a_hole_of_the_vocabulary_has_an_embedding_too(
    tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    shutil.copytree(tokenizer_dir("chatml"), tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    num_tokens, last = len(vocab), max(vocab, key=vocab.__getitem__)
    vocab[last] = num_tokens + 7
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": num_tokens}))
    with pytest.raises(UserError, match=f"{last!r} with the id {num_tokens + 7}, but the model has {num_tokens}"):
        look(tmp_path)


@pytest.mark.parametrize("family", MULTIMODAL)
def test_the_text_of_a_model_that_sees_is_laid_as_text_is(
    family: str, tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    base = write_checkpoint(family, tmp_path)
    shutil.copytree(tokenizer_dir("chatml"), base, dirs_exist_ok=True)
    found = look(base, is_whole=True)
    assert (found.layout, found.notes) == ("one_example" if family in CHUNKED else "packed", [])
    assert bool(found.reason) == (family in CHUNKED)
