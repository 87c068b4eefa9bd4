"""The small model of the zoo: a tokenizer with a token for each word, and a Llama with random weights.

The tokenizer is exact for answers: what it decodes is what it encoded. JSON's quotes are two tokens, one that opens and
one that closes, so that a word is the same token with quotes and without. Capitals count as small letters.
"""

import re
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.learning.base_labels import BASE_WORDS
from benchmarks.learning.zoo.tasks import TASKS
from benchmarks.learning.zoo.words import DAYS, KINDS, LARGEST, LETTERS, MONTHS, NAMES, NOUNS, PLURALS, ZORBISH
from benchmarks.made_models import CHATML

SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<|unknown|>")
_OPENING, _CLOSING = "“", "”"
_ROLES = ("system", "user", "assistant")
_MARKS = (*".,:;?!-[]{}<>=/", "->", "\n", _OPENING, _CLOSING)
# For task tags and ids: `Task type: sort words`, `task_id=3`.
_TAG_WORDS = ("task", "type", "task_id")

SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "rope_theta": 10_000.0,
    # About 1 / sqrt(hidden_size). With the usual 0.02 attention hardly begins to look anywhere in a short training.
    "initializer_range": 0.08,
}
"""0.9 million parameters."""


def vocabulary() -> list[str]:
    """All tokens, in their order: special ones, marks, numbers, words."""
    wordings = " ".join(text for task in TASKS.values() for text in (*task.wordings, *task.unseen_wordings))
    options = " ".join(option for task in TASKS.values() for option in task.options)
    names = " ".join(TASKS).replace("_", " ")
    free = _words_of(" ".join([wordings, options, names, "the comes has on is than and smaller"]))
    listed = [*KINDS, *PLURALS.values(), *NOUNS, *NAMES, *DAYS, *MONTHS, *LETTERS, *ZORBISH.values()]
    words = sorted({*free, *listed, *_ROLES, *_TAG_WORDS, *BASE_WORDS})
    return [*SPECIAL, *_MARKS, *map(str, range(LARGEST)), *words]


def write_tokenizer(folder: Path) -> Path:
    """Write the tokenizer with ChatML as its template."""
    tokens = {token: number for number, token in enumerate(vocabulary())}
    words = Tokenizer(models.WordLevel(tokens, unk_token="<|unknown|>"))
    words.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r'"(?=\w)'), _OPENING),
            normalizers.Replace('"', _CLOSING),
        ]
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Split(Regex(r"->|\w+|\n|[^\w\n ]"), "isolated"),
        ]
    )
    words.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),  # a blank before each token but the first
            decoders.Fuse(),
            decoders.Replace(f"{_OPENING} ", '"'),
            decoders.Replace(f" {_CLOSING}", '"'),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        unk_token="<|unknown|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return folder


def build_model(seed: int) -> LlamaForCausalLM:
    """The model with random weights, the same for a seed on every machine with the same torch."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary()), **SHAPE))
    model.config.pad_token_id, model.config.bos_token_id = 0, None
    model.config.eos_token_id = model.generation_config.eos_token_id = SPECIAL.index("<|im_end|>")
    model.generation_config.pad_token_id, model.generation_config.bos_token_id = 0, None
    return model


def _words_of(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if not word.isdigit()}
