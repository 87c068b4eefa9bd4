"""A small model with random weights that writes words, and ends what it writes: it has a bias for each token."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PhiConfig, PhiForCausalLM

from tests.conftest import SmallRecords, write_tokenizer

_END_BIAS = 2.0
"""Of the token that ends a turn: about one of twenty that are drawn."""


def make_talking_model(folder: Path, seed: int = 0, template: str | None = "chatml") -> Path:
    """The model with the tokenizer of that template, always the same."""
    vocab_size = write_tokenizer(folder, template)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id("<|im_end|>")
    config = PhiConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=end,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PhiForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # what it writes depends on what it reads
        for token, i in tokenizer.get_vocab().items():
            model.lm_head.bias[i] = 0.0 if token.replace("Ġ", " ").strip().isalpha() and token.isascii() else -1e4
        model.lm_head.bias[end] = _END_BIAS
    model.save_pretrained(folder)
    return folder


def job_of(model: Path, records: SmallRecords, folder: Path, **construct: Any) -> dict[str, Any]:
    """A config by which this model makes records of two tasks as Magpie."""
    recipe = {"kind": "magpie", "num": 12, "tasks": ["copy", "sort"], "shots": 2, "max_tokens": 80}
    made: Mapping[str, Any] = {
        "recipes": [{**recipe, "answer_temperature": 0.7}],
        "filters": {"form": False, "copies": False},
        "out": str(folder / "made"),
    }
    return {
        "run": {"name": "made", "dir": str(folder / "run")},
        "model": {"path": str(model), "dtype": "float32"},
        "data": {
            "sources": [{"name": "words", "path": str(records.instructions), "task": {"column": "task"}}],
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 256,
            "holdout": {"share": 0.3},
        },
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "construct": {**made, **construct},
    }
