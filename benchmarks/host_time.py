"""What an engine costs the host: CPU time of a micro-batch, and of a step's update, on a model whose layers do little.

    OMP_NUM_THREADS=1 python -m benchmarks.host_time
    OMP_NUM_THREADS=1 python -m benchmarks.host_time --layers 24 --rounds 15 zero3-module zero3-layer plain bare

On a GPU this time counts twice for a small model: what the host takes longer than the kernels, the device waits. The
kernels of so small a model take next to nothing, so nearly all of it is the work around them. One process; each round
runs all engines in turn, each on the same packs. A line has the median over the rounds, and the ratio to `bare`.

    zero3-module  ZeRO-3, parameters gathered module by module
    zero3-layer   ZeRO-3, parameters gathered layer by layer
    plain         the engine of one worker (`train.engine: plain`)
    bare          forward and backward pass of the same model, and torch's fused AdamW: nothing else
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers

from benchmarks.step_control import config_of, data_of
from sft.config import SftConfig
from sft.config_file import build_config
from sft.data.collate import Batch
from sft.data.loader import StepLoader
from sft.engine.engines import ENGINES
from sft.engine.trained_model import load_trained
from sft.ranks.torch_ranks import TorchRanks
from sft.step_plan import StepPlan
from sft.training.process import quiet_third_parties
from sft.world import World

MICRO_BATCHES = 4
SECONDS = 60
"""Longer than any step takes."""
WARM_UP = 3
"""Rounds that are not counted: DeepSpeed records the order of the modules in its first passes."""
ENGINES_OF: dict[str, tuple[str, dict[str, Any]]] = {
    "zero3-module": ("zero3", {"deepspeed": {"gather": "module"}}),
    "zero3-layer": ("zero3", {"deepspeed": {"gather": "layer"}}),
    "plain": ("plain", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", default=[*ENGINES_OF, "bare"])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    quiet_third_parties()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for checkpointing in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            print_times(compare(options, checkpointing, Path(folder)), checkpointing)


def compare(options: argparse.Namespace, checkpointing: bool, folder: Path) -> dict[str, list[list[float]]]:
    """Engine → its rounds: CPU seconds of one micro-batch, and of a step with one micro-batch."""
    model = folder / "model"
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "vocab_size": 128}
    llama = transformers.LlamaConfig(num_hidden_layers=options.layers, **shape)
    transformers.LlamaForCausalLM(llama).save_pretrained(model)
    content = config_of(World(), 1, model, folder).model_dump(mode="json", by_alias=True)
    content["model"]["dtype"] = options.dtype
    content["train"] |= {"activation_checkpointing": checkpointing, "packs_per_step": MICRO_BATCHES}
    # Each in a process of its own: DeepSpeed changes torch for the whole process.
    context = multiprocessing.get_context("fork")
    pipes = {name: context.Pipe() for name in options.engines}
    workers = [
        context.Process(target=work, args=(name, content, pipe), daemon=True) for name, (_, pipe) in pipes.items()
    ]
    for worker in workers:
        worker.start()
    found: dict[str, list[list[float]]] = {name: [] for name in pipes}
    for round_ in range(options.rounds + WARM_UP):
        for name, (pipe, _) in pipes.items():
            pipe.send(True)
            if not pipe.poll(SECONDS):
                raise SystemExit(f"{name} did not come to the end")
            times = pipe.recv()
            if round_ >= WARM_UP:
                found[name].append(times)
    for pipe, _ in pipes.values():
        pipe.send(False)
    for worker in workers:
        worker.join()
    return found


def work(name: str, content: dict[str, Any], pipe: Any) -> None:
    """The life of a process: a round whenever it is asked for one."""
    torch.set_num_threads(1)  # torch makes its pool of threads anew in a fork, which several threads may not do at once
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    store, plan = data_of(MICRO_BATCHES)
    loader = StepLoader(store, plan, StepPlan(MICRO_BATCHES, MICRO_BATCHES, 1, 1), 0)
    batches, num_supervised = loader.micro_batches(0), loader.num_supervised_tokens(0)
    kind, changes = ENGINES_OF.get(name, (name, {}))
    config = build_config(content | {section: content[section] | own for section, own in changes.items()})
    step = (bare if kind == "bare" else partial(of_engine, kind))(config, batches, num_supervised)
    while pipe.recv():
        times = []
        for num in (1, MICRO_BATCHES):
            before = time.process_time()
            step(num)
            times.append(time.process_time() - before)
        pipe.send([(times[1] - times[0]) / (MICRO_BATCHES - 1), times[0]])


def of_engine(kind: str, config: SftConfig, batches: Sequence[Batch], num_supervised: int) -> Callable[[int], Any]:
    engine = ENGINES[kind](config, config.stages[0].optimizer, config.model.path, TorchRanks(World()))
    return lambda num: engine.train_step(batches[:num], num_supervised, 1e-4)


def bare(config: SftConfig, batches: Sequence[Batch], num_supervised: int) -> Callable[[int], Any]:
    """A loop without an engine: gradients are summed in the model's dtype, nothing is checked."""
    module = load_trained(config, config.model.path, torch.device("cpu"))
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)

    def step(num: int) -> None:
        for batch in batches[:num]:
            (module(batch).sum() / num_supervised).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def print_times(found: dict[str, list[list[float]]], checkpointing: bool) -> None:
    print(f"activation checkpointing {'on' if checkpointing else 'off'}: ms of CPU for a micro-batch, and for a step")
    for name, rounds in found.items():
        line = f"  {name:14}"
        for which in (0, 1):
            own = [1000 * round_[which] for round_ in rounds]
            line += f"  {statistics.median(own):7.1f} (± {statistics.pstdev(own):4.1f})"
            if "bare" in found:
                ratios = [r[which] / b[which] for r, b in zip(rounds, found["bare"], strict=True)]
                line += f" {statistics.median(ratios):5.2f} × bare"
        print(line, flush=True)


if __name__ == "__main__":
    main()
