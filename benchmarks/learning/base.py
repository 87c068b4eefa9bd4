"""Pretrains the base model on `base_text`, in plain torch: what all arms start from.

python -m benchmarks.learning.base FOLDER --tokens 6_000_000
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from benchmarks.learning.base_text import Piece, documents
from benchmarks.learning.model import build_model, write_tokenizer
from benchmarks.learning.scale import FULL
from sft.seeds import derive_seed

_PEAK_RATE = 3e-3
_POOL = 4096
"""Documents that are sorted by length, so that a batch has little padding."""
_WARM_UP = 0.03
NO_LABEL = -100
Row = tuple[list[int], list[int]]
"""Tokens, and labels that stand at their tokens."""


def batches(
    tokenizer: PreTrainedTokenizerBase, seed: int, batch_tokens: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Batches of documents without end: tokens and labels (rows, longest), and the number of tokens without padding."""
    rng = np.random.default_rng(seed)
    texts = documents(rng)
    while True:
        rows = sorted(rows_of(tokenizer, list(itertools.islice(texts, _POOL))), key=lambda row: len(row[0]))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if len(row[0]) * (len(groups[-1]) + 1) > batch_tokens:
                groups.append([])
            groups[-1].append(row)
        for place in rng.permutation(len(groups)):
            yield padded(groups[place])


def rows_of(tokenizer: PreTrainedTokenizerBase, pool: Sequence[list[Piece]]) -> list[Row]:
    """The tokens of each document, and its labels."""
    ids = iter(tokenizer([text for pieces in pool for text, _ in pieces], add_special_tokens=False)["input_ids"])
    rows = []
    for pieces in pool:
        row: Row = ([], [])
        for (_, is_learned), tokens in zip(pieces, ids, strict=False):
            row[0].extend(tokens)
            row[1].extend(tokens if is_learned else [NO_LABEL] * len(tokens))
        rows.append(row)
    return rows


def padded(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Rows as tensors, with padding at the right, and their number of tokens."""
    longest = max(len(tokens) for tokens, _ in rows)
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [NO_LABEL] * (longest - len(row)) for _, row in rows])
    return tokens, labels, sum(len(row) for row, _ in rows)


def loss_of(model: LlamaForCausalLM, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean loss of the tokens that have a label; labels stand at their tokens, as in transformers."""
    logits = model(input_ids=tokens).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=NO_LABEL)


def rate_at(done: float, peak: float) -> float:
    """A warm-up, then a cosine down to a tenth; `done` is the share of the training."""
    if done < _WARM_UP:
        return peak * done / _WARM_UP
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))))


def optimizer_of(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """AdamW with the settings of the arms."""
    return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def pretraining_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest: it learns more from a token than AdamW alone."""
    parameters = list(model.named_parameters())
    matrices = [value for name, value in parameters if value.ndim == 2 and "embed" not in name]
    others = [value for name, value in parameters if value.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def update(
    model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], loss: torch.Tensor, rate: float
) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def pretrain(
    folder: Path,
    num_tokens: int,
    seed: int = 0,
    device: str = "cpu",
    batch_tokens: int = 1536,
    make_optimizers: Callable[[LlamaForCausalLM], list[torch.optim.Optimizer]] = pretraining_optimizers,
) -> Path:
    """Write the base model and its tokenizer as a Hugging Face folder."""
    write_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = build_model(derive_seed(seed, "model")).to(device)
    optimizers = make_optimizers(model)
    seen, began, told = 0, time.monotonic(), 0
    for tokens, labels, count in batches(tokenizer, derive_seed(seed, "documents"), batch_tokens):
        loss = loss_of(model, tokens.to(device), labels.to(device))
        update(model, optimizers, loss, rate_at(seen / num_tokens, _PEAK_RATE))
        seen += count
        if seen >= told:
            print(
                f"{seen:,} tokens, loss {loss.item():.3f}, {seen / (time.monotonic() - began):,.0f} tokens/s",
                flush=True,
            )
            told += num_tokens // 20
        if seen >= num_tokens:
            break
    model.save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=FULL.base_tokens)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    pretrain(arguments.folder, arguments.tokens, arguments.seed, arguments.device)


if __name__ == "__main__":
    main()
