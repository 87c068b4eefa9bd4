"""What recomputing n of a model's layers saves and costs: bytes that are kept, beside `sft plan`, and CPU seconds.

    OMP_NUM_THREADS=1 python -m benchmarks.recomputation
    python -m benchmarks.recomputation --gpu           # seconds and peak memory of a GPU

A Llama with random weights takes a forward and a backward pass over one full pack. Each round takes the choices in
turn, and the median of the rounds counts, so that other work on the machine weighs on all alike. Seconds are those of
the process (on a GPU: of the clock). Kept is what autograd and the layers hold at the end of the forward pass.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sft.config_training import TrainConfig
from sft.data.collate import Batch, collate
from sft.model.attention import PACKED_ATTENTION
from sft.model.loss import SupervisedNll
from sft.model.recomputation import recompute_layers
from sft.recomputed_layers import Recomputed, recomputed_layers
from sft.schema import Pack
from sft.sizing.activations import Numbers, kept_per_token
from sft.sizing.choice import more_arithmetic
from sft.sizing.model_shape import model_shape

MIB = 1024**2
SEGMENT_LEN = 256
MODEL = {
    **{"model_type": "llama", "vocab_size": 4096, "hidden_size": 384, "intermediate_size": 1024},
    **{"num_hidden_layers": 24, "num_attention_heads": 8, "num_key_value_heads": 4},
    "max_position_embeddings": 8192,
}
CHOICES: tuple[Recomputed, ...] = ("none", 0.25, 0.5, 2, 0.75, "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    device = torch.device("cuda" if options.gpu else "cpu")
    dtype = torch.bfloat16 if options.gpu else torch.float32
    shape, batch = model_shape(MODEL), full_pack(options.tokens).to(device)
    modules = {choice: build(choice, dtype, device) for choice in CHOICES}
    seconds: dict[Recomputed, list[float]] = {choice: [] for choice in CHOICES}
    for _ in range(1 + options.rounds):
        for choice, module in modules.items():
            seconds[choice].append(timed(module, batch, device))
    numbers = Numbers(dtype.itemsize, options.gpu)
    of_layer = options.tokens * kept_per_token(shape, shape.layers[0], numbers)
    of_input = options.tokens * dtype.itemsize * shape.hidden_size
    all_kept, whole = kept_bytes(modules["none"], batch), statistics.median(seconds["none"][1:])
    print("| activation_checkpointing | layers | kept, MiB | freed, MiB: by the plan | measured | seconds | more | "
          "more arithmetic, by the plan |\n|---|---:|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    for choice, module in modules.items():
        layers = recomputed_layers(choice, len(shape.layers))
        kept, median = kept_bytes(module, batch), statistics.median(seconds[choice][1:])
        cells = (
            f"{choice}",
            f"{len(layers)}",
            f"{kept / MIB:,.1f}",
            f"{len(layers) * (of_layer - of_input) / MIB:,.1f}",
            f"{(all_kept - kept) / MIB:,.1f}",
            f"{median:.2f}",
            f"{median / whole - 1:+.0%}",
            f"{more_arithmetic(shape, layers):+.0%}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def build(choice: Recomputed, dtype: torch.dtype, device: torch.device) -> SupervisedNll:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**MODEL)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=PACKED_ATTENTION, dtype=dtype)
    recompute_layers(model, TrainConfig(activation_checkpointing=choice))
    return SupervisedNll(model.to(device).train(), 1024)


def full_pack(num_tokens: int) -> Batch:
    bounds = np.arange(0, num_tokens + 1, SEGMENT_LEN)
    mask = np.ones(num_tokens, dtype=bool)
    mask[bounds[:-1]] = False
    tokens = np.random.default_rng(0).integers(0, 4096, num_tokens)
    return collate([Pack(0, np.arange(len(bounds) - 1), tokens, mask, bounds)])


def timed(module: SupervisedNll, batch: Batch, device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    module.zero_grad()
    started = clock()
    module(batch).sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def kept_bytes(module: SupervisedNll, batch: Batch) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nll = module(batch)
    assert nll is not None
    return sum(storage.nbytes() for storage in kept.values())


if __name__ == "__main__":
    main()
