"""What one step's control costs by the number of ranks: what the ranks tell each other, and what the first writes down.

    OMP_NUM_THREADS=1 python benchmarks/step_control.py --ranks 2 4 8 16 32

Real ZeRO-3 ranks over gloo on this machine, forks of one process, with a tiny model and one pack a rank and step. Each
part is measured by itself, behind a barrier. CPU time is that of one process, with the threads of gloo, and so does not
count who else waits for the two cores; wall time does.

    exchange    `sft.training.step_exchange`, on every rank: one all-reduce, and what is made of it
    all-reduce  the same vector alone: what the exchange cannot be without
    record      `sft.training.step_recorder`, on the first rank: ledger, metrics
    agree       what a save asks all ranks twice (`sft.ranks.shared_work`): who is done, a number for each rank
    step        `Engine.train_step`, for comparison
    fit         ms = a + b · ranks, by least squares over the medians
"""

import argparse
import gc
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers

from sft.config import SftConfig
from sft.config_file import build_config
from sft.data.loader import StepLoader
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.engine.zero3 import Zero3Engine
from sft.ledger import LedgerWriter
from sft.progress import Progress
from sft.ranks.shared_work import wait_for_all
from sft.ranks.torch_ranks import TorchRanks
from sft.run_events import EventLog
from sft.step_plan import StepPlan
from sft.training.attempt import Attempt
from sft.training.lr_schedule import LrSchedule, StageSchedule
from sft.training.mfu_meter import MfuMeter
from sft.training.process import quiet_third_parties
from sft.training.step_exchange import StepDecision, StepExchange
from sft.training.step_recorder import StepRecorder
from sft.world import World

TOKENS = 32
VOCABULARY = 128
PARTS = ("step", "exchange", "all-reduce", "agree", "record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=240, help="a group that takes longer is killed")
    options = parser.parse_args()
    quiet_third_parties()
    torch.set_num_threads(1)
    found: dict[int, dict[str, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        config = transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
        )
        transformers.LlamaForCausalLM(config).save_pretrained(model)
        gc.freeze()
        for num_ranks in options.ranks:
            found[num_ranks] = run_group(num_ranks, options, Path(folder))
            print(f"{num_ranks:3d} ranks, ms of CPU (of wall time): " + ", ".join(
                f"{part} {cpu:.2f} ({wall:.2f})" for part, (cpu, wall) in found[num_ranks].items()
            ), flush=True)  # fmt: skip
    for part in PARTS:
        for which, name in enumerate(("CPU", "wall")):
            slope, constant = np.polyfit(list(found), [parts[part][which] for parts in found.values()], 1)
            print(f"{part}, {name}: {constant:.2f} + {slope:.4f} · ranks, ms")


def run_group(num_ranks: int, options: argparse.Namespace, folder: Path) -> dict[str, tuple[float, float]]:
    """The median of each part, in ms: CPU and wall time, of the first rank."""
    own = folder / f"{num_ranks}"
    own.mkdir()
    pids = [os.fork() or run_rank(rank, num_ranks, options.steps, folder, own) for rank in range(num_ranks)]
    left = set(pids)
    late = threading.Timer(options.seconds, kill, (left,))
    late.start()
    while left:
        pid, status = os.wait()
        left.discard(pid)
        if status:
            kill(left)
    late.cancel()
    if not (own / "found.json").is_file():
        raise SystemExit(f"{num_ranks} ranks did not come to the end")
    parts: dict[str, tuple[float, float]] = json.loads((own / "found.json").read_text())
    return parts


def kill(pids: set[int]) -> None:
    for pid in list(pids):
        os.kill(pid, signal.SIGKILL)


def run_rank(rank: int, num_ranks: int, num_steps: int, folder: Path, own: Path) -> int:
    """The life of a rank; never returns."""
    code = 1
    try:
        store = dist.FileStore(str(own / "meeting"), num_ranks)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=num_ranks)
        found = measure(World(rank, num_ranks, rank), num_steps, folder / "model", own)
        if rank == 0:
            medians = {
                part: [1000 * statistics.median(kind) for kind in zip(*found[part], strict=True)] for part in PARTS
            }
            (own / "found.json").write_text(json.dumps(medians))
        dist.barrier()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def measure(world: World, num_steps: int, model: Path, own: Path) -> dict[str, list[tuple[float, float]]]:
    config, ranks = config_of(world, num_steps, model, own), TorchRanks(world)
    engine = Zero3Engine(config, config.stages[0].optimizer, str(model), ranks)
    store, plan = data_of(world.size * num_steps)
    steps = StepPlan(len(plan), world.size, world.size, 1)
    loader = StepLoader(store, plan, steps, world.rank)
    schedule = StageSchedule((LrSchedule(config.stages[0].optimizer, num_steps),))
    exchange = StepExchange(engine, steps)
    attempt = Attempt(1, ranks, own, EventLog(own, world.rank))
    record = None
    if world.is_first:
        ledger = LedgerWriter(own / "ledger.jsonl", 1)
        ledger.resume(0)
        meter, metrics = MfuMeter("none", world), own / "metrics.jsonl"
        record = StepRecorder("only", loader, schedule, attempt, ledger, meter, metrics)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def timed(part: str, do: Callable[[], Any]) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        result = do()
        found[part].append((time.process_time() - cpu, time.perf_counter() - wall))
        return result

    def timed_together(part: str, do: Callable[[], Any]) -> Any:
        dist.barrier()
        return timed(part, do)

    # One step is not counted: what is loaded late, and the first meeting of all pairs of ranks.
    for step in range(num_steps):
        batches = loader.micro_batches(step)
        num_supervised, lr = loader.num_supervised_tokens(step), schedule(step)
        result = timed_together("step", lambda b=batches, n=num_supervised, lr=lr: engine.train_step(b, n, lr))
        summary = timed_together("exchange", lambda b=batches: exchange(b, StepDecision(), 0.0))
        alone = torch.zeros(4 + 2 * world.size + len(summary.slots), dtype=torch.int64)
        timed_together("all-reduce", lambda v=alone: ranks.sum(v))
        timed_together("agree", lambda: wait_for_all(ranks, lambda _: False, Progress()))
        if record is not None:
            keep = (step, result, summary, 1.0, 0.0)
            timed("record", lambda keep=keep: record(*keep))
    return {part: values[1:] for part, values in found.items()}


def config_of(world: World, num_steps: int, model: Path, own: Path) -> SftConfig:
    content = {
        "run": {"name": "control", "dir": str(own / "run")},
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"sources": [{"name": "s", "path": "s.jsonl", "format": "messages"}], "max_len_tokens": TOKENS},
        "stages": [{"name": "only", "budget": {"steps": num_steps}, "optimizer": {"lr": 1e-5}}],
        "train": {"pack_len_tokens": TOKENS, "packs_per_step": world.size, "activation_checkpointing": False},
    }
    return build_config(content)


def data_of(num_packs: int) -> tuple[TokenStore, PackPlan]:
    """In memory: one example, which is every pack."""
    numbers: dict[str, Any] = {
        "tokens": np.arange(TOKENS, dtype=np.uint32),
        "loss_mask": np.arange(TOKENS) > TOKENS // 2,
        "offsets": np.array([0, TOKENS]),
        "num_supervised": np.array([TOKENS // 2 - 1]),
    }
    names = [name for name in TokenStore.__dataclass_fields__ if name not in ("path", "manifest", *numbers)]
    store = TokenStore(Path("memory"), {"tasks": ["t"]}, **numbers, **{name: np.zeros(1, np.int64) for name in names})
    each = [np.full(num_packs, number, np.int64) for number in (TOKENS, TOKENS // 2 - 1)]
    return store, PackPlan(Path(), {}, np.zeros(num_packs, np.int64), np.arange(num_packs + 1), *each)


if __name__ == "__main__":
    main()
