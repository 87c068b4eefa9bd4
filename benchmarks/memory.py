"""Estimates of `sft plan` beside the peak memory of real steps: our ZeRO-3 engine, one and two processes.

    python -m benchmarks.memory                  # CPU processes, gloo
    python -m benchmarks.memory --gpu            # one process for each GPU that a case needs, NCCL

Each case runs in processes of its own: a small model of the same family takes two steps first, so that code that is
loaded late does not count; then the model is loaded and takes three. On CPUs measured is the resident size at its
largest (VmHWM) above that before the model was loaded, with every freed block of 64 KiB or more given back to the
system (MALLOC_MMAP_THRESHOLD_); `--allocator` leaves the C library as it is, which keeps freed blocks. On GPUs it is
`torch.cuda.max_memory_allocated`. Traffic is what went through the collectives in the last step.
"""

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.rank_processes import of_process, run_ranks
from sft.config import SftConfig
from sft.data.collate import collate
from sft.engine.choice import choose_engine
from sft.engine.engines import ENGINES
from sft.ranks.torch_ranks import TorchRanks
from sft.schema import Pack
from sft.sizing.memory import peak_memory
from sft.sizing.model_shape import ModelShape, model_shape
from sft.sizing.setting import Setting
from sft.sizing.traffic import step_traffic
from sft.training.process import quiet_third_parties
from sft.world import World

MIB = 1024**2
STEPS, SMALL_STEPS = 3, 2
SEGMENT_LEN = 256
PREFETCH = 1_000_000
SMALL = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 256, "num_hidden_layers": 2, "head_dim": 16}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "n_embd": 64, "n_layer": 2, "n_head": 4}
SMALL |= {"moe_intermediate_size": 64}


def llama(
    vocab: int, hidden: int, intermediate: int, layers: int, heads: int = 8, key_heads: int = 4
) -> dict[str, Any]:
    return {
        **{"model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": intermediate},
        **{"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_heads},
        "max_position_embeddings": 8192,
    }


MODELS: dict[str, dict[str, Any]] = {
    "Llama, small": llama(4096, 256, 768, 10),
    "Llama, wide": llama(8192, 512, 1536, 8),
    "Llama, deep": llama(4096, 384, 1024, 24),
    "SmolLM2-135M": {**llama(49152, 576, 1536, 30, 9, 3), "tie_word_embeddings": True},
    "Llama, 200M": llama(32000, 1024, 2816, 12, 16, 8),
    "Qwen3": {
        **{"model_type": "qwen3", "vocab_size": 32768, "hidden_size": 512, "intermediate_size": 1536},
        **{"num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64},
        **{"max_position_embeddings": 8192, "tie_word_embeddings": True},
    },
    "GPT-2": {
        **{"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12},
        "n_positions": 1024,
    },
    "Gemma 3": {
        **{"model_type": "gemma3_text", "vocab_size": 32768, "hidden_size": 512, "intermediate_size": 2048},
        **{"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128},
        **{"max_position_embeddings": 8192},
    },
    "Mixtral": {
        **{"model_type": "mixtral", "vocab_size": 8192, "hidden_size": 384, "intermediate_size": 768},
        **{"num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "num_local_experts": 8},
        "num_experts_per_tok": 2,
        **{"max_position_embeddings": 8192, "sliding_window": None},
    },
}


class Case(NamedTuple):
    """One row."""

    model: str
    workers: int
    pack_len: int
    micro: int
    checkpointing: bool | int | float
    """`train.activation_checkpointing`: all layers, none, every n-th, or a share."""
    dtype: str = "bfloat16"
    accumulation: int = 1
    offload: bool = False
    live: int | None = None
    """Parameters that DeepSpeed may keep whole; with few, they are gathered again, as those of large models are."""


CASES = (
    Case("Llama, wide", 1, 1024, 1, False),
    Case("Llama, wide", 1, 1024, 2, True),
    Case("Llama, wide", 2, 1024, 1, False),
    Case("Llama, wide", 2, 4096, 2, True),
    Case("Llama, wide", 2, 512, 2, True, "float32"),
    Case("Llama, wide", 2, 512, 2, False, accumulation=2, offload=True),
    Case("Llama, deep", 1, 2048, 1, False),
    Case("Llama, deep", 2, 2048, 1, True),
    Case("SmolLM2-135M", 1, 1024, 1, True),
    Case("SmolLM2-135M", 2, 1024, 1, False),
    Case("SmolLM2-135M", 2, 1024, 2, True),
    Case("Llama, 200M", 1, 512, 1, True),
    Case("Llama, 200M", 2, 1024, 1, False),
    Case("Qwen3", 1, 1024, 2, False),
    Case("Qwen3", 2, 1024, 1, True),
    Case("GPT-2", 2, 1024, 1, False),
    Case("Gemma 3", 1, 1024, 1, False),
    Case("Mixtral", 2, 1024, 1, False, "float32"),
    Case("Llama, deep", 2, 512, 1, False, live=10_000_000),
    Case("Llama, deep", 2, 512, 1, True, live=10_000_000),
    Case("Llama, deep", 1, 2048, 1, 0.25),
    Case("Llama, deep", 1, 2048, 1, 0.5),
    Case("Llama, deep", 1, 2048, 1, 2),
    Case("Llama, deep", 2, 2048, 1, 0.5),
    Case("Qwen3", 1, 1024, 2, 0.5),
    Case("Llama, deep", 2, 512, 1, 0.5, live=10_000_000),
)
GPU_CASES = (
    Case("SmolLM2-135M", 1, 2048, 2, True),
    Case("SmolLM2-135M", 1, 4096, 4, True),
    Case("SmolLM2-135M", 1, 4096, 2, False),
    Case("SmolLM2-135M", 1, 4096, 4, 0.5),
    Case("Llama, 200M", 1, 4096, 4, False),
    Case("Qwen3", 1, 4096, 4, False),
    Case("GPT-2", 1, 1024, 16, False),
    Case("Gemma 3", 1, 4096, 4, True),
    Case("Mixtral", 1, 4096, 4, False),
    Case("Llama, 200M", 1, 4096, 4, True, offload=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--allocator", action="store_true", help="keep the C library's own threshold")
    parser.add_argument("--only", type=int, nargs="*", help="rows, from 0")
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        run_rank(options.gpu, Path(options.rank[0]), int(options.rank[1]), Case(*json.loads(options.rank[2])))
        return
    cases = GPU_CASES if options.gpu else CASES
    print("| model | parameters, M | workers | dtype | pack × packs | checkpointing | largest moment | estimate, MiB "
          "| measured, MiB | error | traffic, MiB: estimate | measured | s a step |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for i in options.only if options.only is not None else range(len(cases)):
        print(row(cases[i], options), flush=True)


def row(case: Case, options: argparse.Namespace) -> str:
    shape = model_shape(MODELS[case.model])
    setting = Setting.of(build_config(case, Path()), 0, case.workers, options.gpu, shape)
    peak, traffic = peak_memory(shape, setting), step_traffic(shape, setting, case.accumulation)
    measured = measure(case, options)
    error = peak.total / measured["peak"] - 1
    notes = [case.dtype, *(["offload"] if case.offload else [])]
    notes += [f"{case.live / 1e6:g} M live"] if case.live is not None else []
    cells = (
        case.model,
        f"{shape.num_parameters / 1e6:.1f}",
        str(case.workers),
        ", ".join(notes),
        f"{case.pack_len:,} × {case.micro}" + (f", {case.accumulation} times" if case.accumulation > 1 else ""),
        ("yes" if case.checkpointing else "no") if isinstance(case.checkpointing, bool) else f"{case.checkpointing:g}",
        peak.when,
        f"{peak.total / MIB:,.0f}",
        f"{measured['peak'] / MIB:,.0f}",
        f"{error:+.1%}",
        f"{traffic.gathered / MIB:,.0f} + {traffic.reduced / MIB:,.0f}",
        f"{measured['gathered'] / MIB:,.0f} + {measured['reduced'] / MIB:,.0f}",
        f"{measured['seconds']:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def measure(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """What the first rank measured."""
    with tempfile.TemporaryDirectory() as folder:
        write_models(case, Path(folder))
        flags = ["--gpu"] if options.gpu else []
        arguments = [[*flags, "--rank", folder, str(rank), json.dumps(case)] for rank in range(case.workers)]
        # Every freed block of 64 KiB or more goes back to the system.
        allocator = {} if options.allocator else {"MALLOC_MMAP_THRESHOLD_": "65536"}
        run_ranks(__file__, arguments, Path(folder), **allocator)
        found: dict[str, float] = json.loads((Path(folder) / "measured.json").read_text())
        return found


def write_models(case: Case, folder: Path) -> None:
    """The model with random weights, and a small one, by a process that ends."""
    code = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
for name, content in json.loads(sys.argv[2]).items():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**content), dtype=torch.bfloat16)
    model.save_pretrained(f"{sys.argv[1]}/{name}")
"""
    command = [sys.executable, "-c", code, str(folder), json.dumps(models_of(case))]
    subprocess.run(command, check=True, capture_output=True)


def models_of(case: Case) -> dict[str, dict[str, Any]]:
    """The configs of both, by folder."""
    large = MODELS[case.model]
    return {"model": large, "small": {**large, **{key: value for key, value in SMALL.items() if key in large}}}


def build_config(case: Case, folder: Path) -> SftConfig:
    gathering = {}
    if case.live is not None:
        gathering = {"stage3_max_live_parameters": case.live, "stage3_max_reuse_distance": case.live}
        gathering["stage3_prefetch_bucket_size"] = PREFETCH
    return SftConfig.model_validate(
        {
            "run": {"name": "memory", "dir": str(folder)},
            "model": {"path": str(folder / "model"), "dtype": case.dtype},
            "data": {"sources": [{"name": "none", "path": "none/none"}]},
            "stages": [{"name": "only", "budget": {"steps": STEPS}, "optimizer": {"lr": 1e-4}}],
            "train": {
                "pack_len_tokens": case.pack_len,
                "packs_per_step": case.workers * case.micro * case.accumulation,
                "packs_per_micro_batch": case.micro,
                "activation_checkpointing": case.checkpointing,
            },
            "deepspeed": {
                "offload_optimizer": "cpu" if case.offload else "none",
                "extra": {"zero_optimization": gathering} if gathering else {},
            },
        }
    )


def run_rank(on_gpu: bool, folder: Path, rank: int, case: Case) -> None:
    quiet_third_parties()
    torch.set_num_threads(1)
    world = World(rank, case.workers, rank, device=f"cuda:{rank}" if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.set_device(world.device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=case.workers,
        timeout=timedelta(seconds=600),
    )
    train(case, folder, "small", world, SMALL_STEPS)
    if on_gpu:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = 1024 * of_process("status", "VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    found = train(case, folder, "model", world, STEPS)
    found["peak"] = (torch.cuda.max_memory_allocated() if on_gpu else 1024 * of_process("status", "VmHWM")) - before
    if rank == 0:
        (folder / "measured.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def train(case: Case, folder: Path, model: str, world: World, num_steps: int) -> dict[str, float]:
    """Take steps with random packs; returns seconds and traffic of the last."""
    config = build_config(case, folder)
    shape = model_shape(json.loads((folder / model / "config.json").read_text()))
    build = ENGINES[choose_engine(config, world.size)]
    engine = build(config, config.stages[0].optimizer, str(folder / model), TorchRanks(world))
    # Imported after the engine has chosen the device; the plain engine of one worker sends nothing.
    from deepspeed.comm import comm  # noqa: PLC0415  (see above)

    counted = {"gathered": 0.0, "reduced": 0.0}
    backend: Any = comm.cdb or SimpleNamespace(all_gather_function=None, reduce_scatter_function=None)
    gather, reduce = backend.all_gather_function, backend.reduce_scatter_function

    def counting_gather(output_tensor: Any, input_tensor: Any, **options: Any) -> Any:
        counted["gathered"] += output_tensor.nbytes - input_tensor.nbytes
        return gather(output_tensor=output_tensor, input_tensor=input_tensor, **options)

    def counting_reduce(output_tensor: Any, input_tensor: Any, **options: Any) -> Any:
        counted["reduced"] += input_tensor.nbytes - output_tensor.nbytes
        return reduce(output_tensor, input_tensor, **options)

    backend.all_gather_function, backend.reduce_scatter_function = counting_gather, counting_reduce
    rng = np.random.default_rng(world.rank)
    for _ in range(num_steps):
        batches = [collate(random_packs(case, shape, rng)) for _ in range(case.accumulation)]
        counted |= {"gathered": 0.0, "reduced": 0.0}
        started = time.perf_counter()
        engine.train_step(batches, case.workers * sum(b.num_supervised_tokens for b in batches), 1e-4)
        seconds = time.perf_counter() - started
    backend.all_gather_function, backend.reduce_scatter_function = gather, reduce
    engine.close()
    return {"seconds": seconds, **counted}


def random_packs(case: Case, shape: ModelShape, rng: np.random.Generator) -> list[Any]:
    """Full packs of segments of 256 tokens, all supervised that can be."""
    packs = []
    for i in range(case.micro):
        bounds = np.arange(0, case.pack_len + 1, min(SEGMENT_LEN, case.pack_len))
        mask = np.ones(case.pack_len, dtype=bool)
        mask[bounds[:-1]] = False
        tokens = rng.integers(0, shape.vocab_size, case.pack_len)
        packs.append(Pack(i, np.arange(len(bounds) - 1), tokens, mask, bounds))
    return packs


if __name__ == "__main__":
    main()
