"""How long ranks wait for the slowest: packs in slices, and dealt by cost. Pure arithmetic, half a minute, no model.

    python benchmarks/dealing.py DATA.jsonl [--ranks 8 64 512]

A micro-batch takes as long as the rank with the dearest packs, because ZeRO-3's ranks run every layer together. So a
step takes the sum over its micro-batches of the dearest, in floating-point operations of the forward pass. `slowest /
mean` is that sum, divided by what it would be if all ranks had the same; over --steps steps.

    Dolly      lengths of DATA's records (characters / 4, responses supervised), in packs of 8,192
    long tail  log-normal lengths, median 1,500, 32,768 at most, a random part supervised, in packs of 32,768

Examples are packed as a stage packs them. With one pack a micro-batch and one micro-batch a step, there is nothing to
deal: the ratio is that of the dearest pack.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sft.data.mapped_arrays import stretch_reader
from sft.data.planning.packing import pack_order
from sft.sizing.flops import forward_rates
from sft.sizing.model_shape import model_shape
from sft.step_plan import StepPlan

MODELS = {
    "0.5B": {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True},
    "8B": {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False},
}  # fmt: skip
SPLITS = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (2, 4))
"""(micro-batches a step, packs a micro-batch)."""


class Lengths(NamedTuple):
    """Tokens of each example."""

    tokens: np.ndarray
    supervised: np.ndarray
    pack_len: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    data = {"Dolly": read_lengths(options.data), "long tail": long_tail()}
    print(f"{'data':<10} {'model':>5} {'ranks':>6} {'micro-batches':>14} {'packs in each':>14} "
          f"{'slices':>7} {'dealt':>7} {'dearest pack / mean':>20} {'deal, ms':>9}")  # fmt: skip
    for name, lengths in data.items():
        for world_size in options.ranks:
            for num_micro_batches, each in SPLITS:
                packs_per_step = world_size * num_micro_batches * each
                counts = packed(lengths, packs_per_step, options.steps)
                for model, config in MODELS.items():
                    rates = forward_rates(model_shape(config))
                    costs = sum(rate * count for rate, count in zip(rates, counts, strict=True))
                    plan = StepPlan(len(costs), packs_per_step, world_size, each)
                    sliced, _ = slowest_over_mean(plan, costs, options.steps)
                    dealt, seconds = slowest_over_mean(replace(plan, costs=stretch_reader(costs)), costs, options.steps)
                    print(f"{name:<10} {model:>5} {world_size:>6} {num_micro_batches:>14} {each:>14} {sliced:>7.3f} "
                          f"{dealt:>7.3f} {costs.max() / costs.mean():>20.2f} {1000 * seconds:>9.1f}",
                          flush=True)  # fmt: skip


def read_lengths(data: Path) -> Lengths:
    tokens, supervised = [], []
    with data.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            supervised.append(max(1, len(record["response"]) // 4))
            tokens.append(sum(len(text) // 4 for text in record.values()) + 8)
    return Lengths(np.minimum(tokens, 8192), np.minimum(supervised, 8192), 8192)


def long_tail() -> Lengths:
    rng = np.random.default_rng(0)
    tokens = np.clip(rng.lognormal(np.log(1500), 1.4, 200_000), 16, 32_768).astype(np.int64)
    return Lengths(tokens, np.maximum(1, tokens * rng.uniform(0.2, 0.9, len(tokens))).astype(np.int64), 32_768)


def packed(lengths: Lengths, packs_per_step: int, num_steps: int) -> tuple[np.ndarray, ...]:
    """Tokens, supervised tokens and squared lengths of each pack of full steps; examples come again where needed."""
    rng = np.random.default_rng(1)
    wanted = (num_steps + 1) * packs_per_step * lengths.pack_len
    num_epochs = -(-wanted // int(lengths.tokens.sum()))
    order = np.concatenate([rng.permutation(len(lengths.tokens)) for _ in range(num_epochs)])
    order = order[: np.searchsorted(np.cumsum(lengths.tokens[order]), wanted)]
    tasks = np.zeros(len(order), np.int64)
    positions, starts = pack_order(lengths.tokens[order], order, tasks, lengths.pack_len, packs_per_step, seed=0)
    examples, starts = order[positions], starts[: num_steps * packs_per_step + 1]
    of_examples = (lengths.tokens, lengths.supervised, np.square(lengths.tokens))
    return tuple(np.add.reduceat(count[examples[: starts[-1]]], starts[:-1]) for count in of_examples)


def slowest_over_mean(plan: StepPlan, costs: np.ndarray, num_steps: int) -> tuple[float, float]:
    """And the seconds that each step's deal takes."""
    padded = np.append(costs, 0)  # the last one is that of `EMPTY_PACK`
    started = time.perf_counter()
    dealt = [plan.dealt(step) for step in range(num_steps)]
    seconds = (time.perf_counter() - started) / num_steps
    # (steps, ranks, micro-batches)
    each = padded[np.array(dealt)].sum(axis=-1)
    return float(each.max(axis=1).sum() / each.mean(axis=1).sum()), seconds


if __name__ == "__main__":
    main()
