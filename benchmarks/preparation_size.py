"""What `sft prepare` costs as the data grows: time and memory of each of its parts, from a file to the plans.

usage: python -m benchmarks.preparation_size TOKENIZER_DIR DATA.jsonl [--sizes 10000 100000 1000000] [--near] [--small]

Records are put together from runs of three words of DATA's texts (Dolly's columns), with the lengths of DATA's own, or
a tenth of them with --small. A twentieth are copies of other records, and another twentieth are copies with one word
changed. So there are duplicates, near duplicates (looked for with --near) and runs that held-out examples share with
others. Each size is made in a process of its own, by `prepare_workload` with threads, as `sft prepare` does on one
machine with few cores. --drawn draws the parts of the store instead of tokenizing: for what comes behind them.

A thread looks every 20 ms at what the main thread does and at the memory of the process:

    own, MiB      RssAnon: what the process has allocated; there is no swap
    files, MiB    RssFile: pages of mapped files, which the system may drop at any time
    B a record    growth of the largest (own + files) from one size to the next
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from sft.config import SftConfig
from sft.data.block_preparer import BlockPreparer, PreparedBlock, prepare_in_threads
from sft.data.duplicates import NUM_PERMUTATIONS
from sft.data.reading.blocks import Block
from sft.training.workload import prepare_workload

MIB = 1 << 20
RUN_WORDS, REMEMBERED, COPY_SHARE = 3, 5000, 0.05
STAGES = {
    ("preparation.py", "_build_parts"): "blocks",
    ("left_out.py", "find_left_out"): "duplicates",
    ("store_parts.py", "publish_store"): "joining",
    ("trainable.py", "find_trainable"): "overlap",
    ("stage_plan.py", "plan_stages"): "planning",
    ("stage_plan.py", "plan_heldout"): "planning",
    ("store_recipe.py", "of"): "sources",
}
"""A function of the main thread, the innermost of these that is on its stack → what it works on."""


Found = dict[str, Any]
"""What a size cost: `stages`, `wall`, `cpu` (s), `peak` (bytes) and counts."""


class Kind(NamedTuple):
    """What is prepared, and how."""

    tokenizer: Path
    data: Path
    near: bool = False
    small: bool = False
    drawn: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--near", action="store_true", help="look for near duplicates too")
    parser.add_argument("--small", action="store_true", help="records of a tenth of the length")
    parser.add_argument("--drawn", action="store_true", help="draw tokens instead of making them")
    parser.add_argument("--folder", type=Path, help="where files are written, and kept; else a temporary folder")
    options = parser.parse_args()
    before: Found | None = None
    kind = Kind(options.tokenizer, options.data, options.near, options.small, options.drawn)
    for size in options.sizes:
        found = measure(kind, size, options.folder)
        show(size, found, before)
        before = {"size": size, **found}


def measure(kind: Kind, size: int, parent: Path | None) -> Found:
    """Write so many records into a folder below `parent`, and prepare them."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        write_records(Path(folder) / "records.jsonl", kind.data, size, kind.small)
        return prepare_apart(kind, Path(folder))


def prepare_written(kind: Kind, records: Path) -> Found:
    """Prepare records that `write_records` has written."""
    with tempfile.TemporaryDirectory(dir=records.parent) as folder:
        (Path(folder) / "records.jsonl").hardlink_to(records)
        return prepare_apart(kind, Path(folder))


def prepare_apart(kind: Kind, folder: Path) -> Found:
    """`prepare` in a process of its own; `folder` holds the records, and gets all else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(prepare, (kind, folder))


def exponent(size: int, cost: float, larger: int, its_cost: float) -> float:
    """k, where cost grows as size to the power k."""
    return math.log(its_cost / cost) / math.log(larger / size)


def write_records(path: Path, data: Path, size: int, is_small: bool) -> None:
    """Write `size` records as JSON lines."""
    words, lengths = read_words(data)
    rng = np.random.default_rng(0)
    remembered: list[tuple[list[str], list[str]]] = []
    with path.open("w", encoding="utf-8") as file:
        for _ in range(size):
            kind = rng.random()
            if remembered and kind < 2 * COPY_SHARE:
                asked, said = remembered[rng.integers(len(remembered))]
                if kind < COPY_SHARE:
                    asked = [*asked]
                    asked[len(asked) // 2] = words[rng.integers(len(words))]
            else:
                each = lengths[rng.integers(len(lengths))] // (10 if is_small else 1)
                asked, said = (draw_words(words, int(n), rng) for n in each)
                if len(remembered) < REMEMBERED:
                    remembered.append((asked, said))
                elif kind > 0.9:
                    remembered[rng.integers(REMEMBERED)] = asked, said
            row = {"instruction": " ".join(asked), "context": "", "response": " ".join(said)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_words(data: Path) -> tuple[list[str], np.ndarray]:
    """All words of the data's texts, and the words in the prompt and in the answer of each record."""
    words: list[str] = []
    lengths = []
    with data.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            asked, said = f"{row['instruction']} {row['context']}".split(), row["response"].split()
            words += asked + said
            lengths.append((len(asked), len(said)))
    return words, np.array(lengths)


def draw_words(words: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` words, at least three, in runs that stand so in the data."""
    starts = rng.integers(0, len(words) - RUN_WORDS, max(1, count // RUN_WORDS))
    return [word for start in starts.tolist() for word in words[start : start + RUN_WORDS]]


def prepare(kind: Kind, folder: Path) -> Found:
    """Prepare the records in this process; what each part cost."""
    config = SftConfig.model_validate(
        {
            "run": {"name": "size", "dir": str(folder / "run")},
            "model": {"path": str(kind.tokenizer)},
            "data": {
                "sources": [{"name": "records", "path": str(folder / "records.jsonl"), "task": "records"}],
                "cache_dir": str(folder / "cache"),
                "duplicates": "remove_near" if kind.near else "remove",
                "max_len_tokens": 2048,
                "bad_records": "quarantine",
            },
            "stages": [{"name": "only", "budget": {"epochs": 1}, "optimizer": {"lr": 1e-4}}],
            "train": {"pack_len_tokens": 4096, "packs_per_step": 32},
        }
    )
    watched, ended = Watched(), threading.Event()
    watch = threading.Thread(target=watched.run, args=(threading.main_thread().ident, ended))
    watch.start()
    wall, cpu = time.perf_counter(), time.process_time()
    _, store, _ = prepare_workload(config, executor=draw_parts if kind.drawn else prepare_in_threads)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    ended.set()
    watch.join()
    counts = {name: store.manifest[name] for name in ("num_kept", "num_duplicate", "num_near_duplicate")}
    return {"stages": watched.found(), "wall": wall, "cpu": cpu, "peak": resident()["VmHWM"], **counts}


class Watched:
    """Looks at the main thread and at the memory of the process."""

    def __init__(self) -> None:
        self._stages: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(("own", "files", "both", "s"), 0))

    def run(self, thread: int, ended: threading.Event) -> None:
        seen = time.perf_counter()
        while not ended.wait(0.02):
            frame, stage = sys._current_frames().get(thread), "start"
            while frame is not None:
                place = os.path.basename(frame.f_code.co_filename), frame.f_code.co_name
                if place in STAGES:
                    stage = STAGES[place]
                    break
                frame = frame.f_back
            sizes, now = resident(), time.perf_counter()
            row = self._stages[stage]
            row["own"] = max(row["own"], sizes["RssAnon"])
            row["files"] = max(row["files"], sizes["RssFile"])
            row["both"] = max(row["both"], sizes["VmRSS"])
            row["s"] += now - seen
            seen = now

    def found(self) -> dict[str, dict[str, float]]:
        return {stage: dict(row) for stage, row in self._stages.items()}


def resident() -> dict[str, int]:
    """Bytes, of this process, by the kernel's names."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    wanted = ("VmRSS:", "VmHWM:", "RssAnon:", "RssFile:")
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.startswith(wanted)}


def draw_parts(preparer: BlockPreparer, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
    """Parts of the same records without tokenizer and template: numbers are made of a line's bytes.

    Lines that are equal have equal hashes, and those with equal ends have runs of tokens and signatures in common.
    """
    factor = max(1, (min(preparer.pipeline.tokenizer.num_ids, 1 << 16) - 1) // 255)  # a byte becomes a token
    for block in blocks:
        assert isinstance(block.content, bytes)
        lines = [line for line in block.content.split(b"\n") if line]
        whole = spread(np.array([zlib.crc32(line) for line in lines], np.uint64))
        ends = spread(np.array([zlib.crc32(line[-60:]) for line in lines], np.uint64))
        tokens = [np.frombuffer(line[::-1], np.uint8)[4:8196:4].astype(np.uint16) * np.uint16(factor) for line in lines]
        lengths = np.array([len(ids) for ids in tokens])
        mask = np.ones(lengths.sum(), dtype=bool)
        mask[np.cumsum(lengths) - lengths] = False
        numbers = block.first_index + np.arange(len(lines))
        zeros = np.zeros(len(lines), np.int32)
        arrays = {
            **{"tokens": np.concatenate(tokens), "loss_mask": mask, "lengths": lengths},
            **{"num_supervised": (lengths - 1).astype(np.int32), "task_ids": zeros, "source_ids": zeros},
            **{"record_ids": numbers, "prompt_hashes": whole, "content_hashes": whole, "file_ids": zeros},
            **{"line_numbers": numbers + 1, "instances": zeros, "num_rows": np.ones(len(lines), np.int64)},
        }
        if preparer.data.duplicates == "remove_near":
            places = np.arange(NUM_PERMUTATIONS, dtype=np.uint64)
            seeds = np.where(places < NUM_PERMUTATIONS // 16, whole[:, None], ends[:, None])
            arrays["signatures"] = (spread(seeds + places) >> np.uint64(32)).astype(np.uint32)
        about = {
            **{"tasks": ["records"], "files": [(block.where.file, True)], "source": block.source, "notes": []},
            **{"num_read": len(lines), "num_shortened": 0, "num_repaired": 0, "num_markers": 0, "rejected": []},
        }
        part = save(arrays, {"about": json.dumps(about)})
        yield PreparedBlock(block.source, block.number, block.done, part)


def spread(numbers: np.ndarray) -> np.ndarray:
    """Each number as another that looks random."""
    numbers = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return numbers ^ (numbers >> np.uint64(32))


def show(size: int, found: Found, before: Found | None) -> None:
    print(f"{size:,} records: {found['wall']:.1f} s, {found['cpu']:.1f} s of CPU, {1e6 * found['cpu'] / size:.0f} µs "
          f"a record; peak {found['peak'] / MIB:,.0f} MiB; kept {found['num_kept']:,}, duplicates "
          f"{found['num_duplicate']:,}, near {found['num_near_duplicate']:,}")  # fmt: skip
    print(f"{'':>12} {'s':>8} {'own, MiB':>10} {'files, MiB':>11} {'B a record':>11}")
    for stage, row in found["stages"].items():
        growth = "-"
        if before is not None and stage in before["stages"]:
            more = row["both"] - before["stages"][stage]["both"]
            growth = f"{more / (size - before['size']):.0f}"
        print(f"{stage:>12} {row['s']:8.1f} {row['own'] / MIB:10,.0f} {row['files'] / MIB:11,.0f} {growth:>11}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
