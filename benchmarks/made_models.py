"""Models for the benchmarks, made on any machine: random weights, and a BPE tokenizer trained on the data at hand.

The template is ChatML with TRL's `{% generation %}` marks, without which TRL learns no answers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m['content'] }}<|im_end|>\n{% endgeneration %}"
    "{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 8192
_COMMON = {
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "max_position_embeddings": 16_384,
    "tie_word_embeddings": True,
}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "Llama": {"model_type": "llama", "num_key_value_heads": 6, **_COMMON},
    "Qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 48, **_COMMON},
}
"""Both have 8 million parameters; the second has norms of queries and keys, and three heads to a group."""
SMALL = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6, "head_dim": 8}
"""For a quick look at whether everything runs."""


def write_tokenizer(folder: Path, data: Path, vocabulary: int = VOCABULARY) -> Path:
    """Train a tokenizer on the texts of JSON lines."""
    with data.open(encoding="utf-8") as lines:
        texts = ["\n".join(str(value) for value in json.loads(line).values()) for line in lines]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return folder


def write_weights(folder: Path, shape: Mapping[str, Any], vocabulary: int = VOCABULARY) -> Path:
    """A model of this shape with random weights, the same on every machine with the same torch."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**shape, "vocab_size": vocabulary})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = config.eos_token_id = None
    model.save_pretrained(folder)
    return folder
