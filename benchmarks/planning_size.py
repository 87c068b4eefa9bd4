"""What planning costs as the data grows: draw, packing, opening the plan, finding a step, reading packs.

usage: python -m benchmarks.planning_size [DATA.jsonl] [--sizes 100000 1000000 10000000] [--pack-len 4096]

Lengths are drawn from those of DATA's records (characters of all text fields / 4), or are log-normal without it. Each
size is a process of its own, so that its peak of memory is its own. Eight tasks, of very different sizes, are mixed at
temperature 2 in supervised tokens, as many as the data holds, so small tasks come again. Stores for reading hold at
most --read-examples.

    draw, pack, s    the order of the stage, and its packs; one core
    peak, MiB        resident memory of the process, which begins with numpy's
    fill             part of the slots that hold a token
    open, ms         the published plan, opened in a process that has not seen it
    step k, ms       its packs, and the supervised tokens in it: first, middle and last step
    read, MiB        resident memory that reading random packs of a store of that size adds
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sft.atomic_files import publish_folder
from sft.config import MixtureConfig
from sft.data.planning.mixture import TaskSupply, allot, draw, mixing_rates
from sft.data.planning.pack_plan import PackPlan, publish_plan
from sft.data.planning.packing import pack_order
from sft.data.token_store import TokenStore
from sft.step_plan import StepPlan

NUM_TASKS = 8
NUM_READ_PACKS = 200
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--pack-len", type=int, default=4096)
    parser.add_argument("--packs-per-step", type=int, default=32)
    parser.add_argument("--max-len", type=int, default=2048, help="longer records are left out")
    parser.add_argument("--read-examples", type=int, default=1_000_000)
    options = parser.parse_args()
    known = read_lengths(options.data, options.max_len)
    print(f"lengths: mean {known.mean():.0f}, median {np.median(known):.0f}, at most {known.max()} tokens; "
          f"packs of {options.pack_len}, {options.packs_per_step} a step")  # fmt: skip
    print(f"{'examples':>12} {'draw, s':>8} {'pack, s':>8} {'peak, MiB':>10} {'fill':>8} {'steps':>8} "
          f"{'open, ms':>9} {'step k, ms':>20} {'read, MiB':>10}")  # fmt: skip
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            made = apart(plan, known, size, options, Path(folder))
            found = apart(find, options, Path(folder))
            read = apart(read_packs, Path(folder)) if size <= options.read_examples else None
        steps = " ".join(f"{ms:6.2f}" for ms in found["step_ms"])
        print(f"{size:>12,} {made['draw']:8.2f} {made['pack']:8.2f} {made['peak']:10,.0f} {made['fill']:8.2%} "
              f"{made['steps']:8,} {found['open_ms']:9.1f} {steps:>20} {'-' if read is None else f'{read:.1f}':>10}",
              flush=True)  # fmt: skip


def apart(measure: Callable[..., Any], *arguments: Any) -> Any:
    """What `measure` returns in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def read_lengths(data: Path | None, max_len: int) -> np.ndarray:
    if data is None:
        lengths = np.random.default_rng(0).lognormal(np.log(128), 1.0, 20_000).astype(np.int64)
    else:
        with data.open(encoding="utf-8") as lines:
            records = map(json.loads, lines)
            lengths = np.array([sum(len(v) for v in r.values() if isinstance(v, str)) // 4 for r in records])
    return lengths[(lengths >= 8) & (lengths <= max_len)]


def plan_seconds(size: int) -> float:
    """Seconds that drawing and packing so many examples of log-normal lengths take, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        options = argparse.Namespace(pack_len=4096, packs_per_step=32, read_examples=0)
        made = apart(plan, read_lengths(None, 2048), size, options, Path(folder))
    return float(made["draw"] + made["pack"])


def plan(known: np.ndarray, size: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    rng = np.random.default_rng(1)
    lengths = known[rng.integers(0, len(known), size)].astype(np.int32)
    supervised = np.maximum(1, lengths // 2)
    task_ids = rng.choice(NUM_TASKS, size, p=(weights := 0.4 ** np.arange(NUM_TASKS)) / weights.sum()).astype(np.int32)
    supplies = {}
    for task in range(NUM_TASKS):
        ids = np.flatnonzero(task_ids == task)
        units = supervised[ids]
        supplies[f"t{task}"] = TaskSupply(ids, units, int(units.sum()), int(lengths[ids].sum()), int(units.sum()))
    sizes = {task: supply.units for task, supply in supplies.items()}
    rates = mixing_rates(MixtureConfig(rates="temperature", temperature=2.0), sizes)
    started = time.perf_counter()
    order = draw(supplies, allot(rates, sum(sizes.values()), dict.fromkeys(rates, np.inf)), seed=1)
    drawn = time.perf_counter()
    packed = pack_order(lengths[order], order, task_ids[order], options.pack_len, options.packs_per_step, seed=1)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    num_packs = len(packed[1]) - 1
    store = write_store(folder / "store", lengths, supervised, task_ids, size <= options.read_examples)
    publish_plan(folder / "packs", order, packed, store, {"kind": "stage_plan"})
    fill = int(lengths[order].sum(dtype=np.int64)) / (num_packs * options.pack_len)
    counts = {"fill": fill, "steps": -(-num_packs // options.packs_per_step), "peak": peak}
    return {"draw": drawn - started, "pack": ended - drawn, **counts}


def write_store(
    path: Path, lengths: np.ndarray, supervised: np.ndarray, task_ids: np.ndarray, with_tokens: bool
) -> TokenStore:
    """A store of these examples; its tokens are zeros, and only there where packs will be read."""
    aside = path.with_name("aside")
    aside.mkdir()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    num_tokens = int(offsets[-1]) if with_tokens else 0
    for name, dtype in (("tokens", np.uint16), ("loss_mask", np.bool_)):
        mapped = np.lib.format.open_memmap(aside / f"{name}.npy", mode="w+", dtype=dtype, shape=(max(num_tokens, 1),))
        mapped[:] = 0
        mapped.flush()
    one_each = {"offsets": offsets, "num_supervised": supervised, "task_ids": task_ids}
    fields = [name for name in TokenStore.__dataclass_fields__ if name not in ("path", "manifest")]
    for name in fields:
        if name not in ("tokens", "loss_mask"):
            np.save(aside / f"{name}.npy", one_each.get(name, np.zeros(len(lengths), np.int64)))
    publish_folder(aside, path, {"kind": "token_store", "tasks": [f"t{i}" for i in range(NUM_TASKS)]})
    return TokenStore.open(path)


def find(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    opened = PackPlan.open(folder / "packs")
    open_ms = 1000 * (time.perf_counter() - started)
    steps = StepPlan(len(opened), options.packs_per_step, 1, 1)
    step_ms = []
    for k in (0, steps.num_steps // 2, steps.num_steps - 1):
        started = time.perf_counter()
        packs = steps.step_packs(k)
        opened.num_supervised_tokens(packs)
        for pack in packs:
            opened.pack_examples(pack)
        step_ms.append(1000 * (time.perf_counter() - started))
    return {"open_ms": open_ms, "step_ms": step_ms}


def read_packs(folder: Path) -> float:
    """What reading random packs adds to the resident memory, mapped pages counted."""
    store, opened = TokenStore.open(folder / "store"), PackPlan.open(folder / "packs")
    rng = np.random.default_rng(2)
    opened.read_pack(0, store)
    before = resident_bytes()
    for pack in rng.integers(0, len(opened), NUM_READ_PACKS).tolist():
        opened.read_pack(pack, store)
    return (resident_bytes() - before) / MIB


def resident_bytes() -> int:
    """Of this process, with the pages of mapped files that it touched."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


if __name__ == "__main__":
    main()
