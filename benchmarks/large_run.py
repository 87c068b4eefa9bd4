"""What `sft status`, `sft report` and `sft verify` take on the folder of a long run of many ranks.

    python benchmarks/large_run.py --ranks 512 --steps 100000

The folder is made here, as a run leaves it: a plan of --ranks packs a step and its token store, a ledger and metrics of
all steps with --restarts restarts, in each of which every rank met an error, two checkpoints of --ranks files, a model.
The files are true: hashes and digests are those of their content. Small are the examples (--tokens) and the state in
the checkpoints (--file-bytes), as hashing them takes what their bytes take.

    s, s of CPU, MiB   of the command, started anew: until it ended; of all its processes together; the most resident
                       memory of all together, with the pages of mapped files
    --package          the program's root that is measured, such as another checkout
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from sft.atomic_files import fingerprint, publish_folder, write_json, written_aside
from sft.attempt_record import write_began
from sft.checkpoint.storage import step_name
from sft.ledger import LedgerEntry, LedgerWriter
from sft.metrics import StepMetrics
from sft.run_events import EventLog
from sft.run_folder import RunFolder, StageFolder
from sft.verification.digests import digest_steps

NUM_EXAMPLES = 100_000
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=512)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--restarts", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=8, help="of an example, which is a pack")
    parser.add_argument("--file-bytes", type=int, default=4096, help="of a rank's file in a checkpoint")
    parser.add_argument("--package", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--folder", type=Path, help="where the run is made, or lies already; default: a temporary one")
    parser.add_argument("--verbs", nargs="+", default=["status", "report", "verify"])
    options = parser.parse_args()
    if options.folder is not None:
        measure_all(options, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure_all(options, Path(folder))


def measure_all(options: argparse.Namespace, folder: Path) -> None:
    run = RunFolder(folder / "run")
    if not run.config.is_file():
        started = time.perf_counter()
        make_run(options, folder)
        ledger = run.stage(0, "only").ledger
        num_files = sum(1 for path in folder.rglob("*") if path.is_file())
        print(f"made in {time.perf_counter() - started:.0f} s: {num_files:,} files, a ledger of "
              f"{ledger.stat().st_size / MIB:,.0f} MiB", flush=True)  # fmt: skip
    for verb in options.verbs:
        for turn in ("cold", "warm"):
            if turn == "cold":
                subprocess.run(["sync"], check=True)
                drop_caches(folder)
            seconds, cpu, mib, said = measure(options.package.resolve(), verb, run.path.resolve())
            print(f"{verb} ({turn}): {seconds:.1f} s, {cpu:.1f} s of CPU, {mib:,.0f} MiB; {said}", flush=True)


def drop_caches(folder: Path) -> None:
    """Of the files' pages alone: what the system knows of folders stays."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > MIB:
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure(package: Path, verb: str, run: Path) -> tuple[float, float, float, str]:
    """Seconds, those of the CPUs, the most resident memory in MiB, of all its processes together; its last words."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    cpu: dict[int, float] = {}
    started, most = time.perf_counter(), 0
    with (
        tempfile.TemporaryFile() as out,
        subprocess.Popen(
            [sys.executable, "-m", "launcher", verb, str(run)], stdout=out, stderr=out, env=environment, cwd=package
        ) as command,
    ):
        watched = psutil.Process(command.pid)
        while command.poll() is None:
            most = max(most, look_at(watched, cpu))
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        out.seek(0)
        lines = out.read().decode().strip().splitlines()
    return seconds, sum(cpu.values()), most / MIB, f"exit code {command.returncode}: {' '.join(lines[-2:])}"


def look_at(process: psutil.Process, cpu: dict[int, float]) -> int:
    """Resident bytes of the process and of all below it; how much each has computed goes to `cpu`."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
                cpu[one.pid] = sum(one.cpu_times()[:2])
    return total


def make_run(options: argparse.Namespace, folder: Path) -> None:
    run = RunFolder(folder / "run")
    stage = run.stage(0, "only")
    store = make_store(options, folder / "cache")
    make_plan(options, stage, store.name)
    make_steps(options, run, stage, store)
    for step in (options.steps - 200, options.steps):
        files = {
            f"rank-{rank:05d}-of-{options.ranks:05d}.safetensors": options.file_bytes for rank in range(options.ranks)
        }
        publish(stage.checkpoints / step_name(step), files, {"kind": "checkpoint", "step": step})
    publish(stage.model, {"model.safetensors": MIB}, {"kind": "model"})
    write_json(stage.complete, {"stage": "only", "num_steps": options.steps, "attempt": 1})
    content = {
        "run": {"name": "large", "dir": str(run.path)},
        "model": {"path": "none"},
        "data": {
            "sources": [{"name": "s", "path": "s.jsonl", "format": "messages"}],
            "cache_dir": str(folder / "cache"),
        },
        "stages": [{"name": "only", "budget": {"steps": options.steps}, "optimizer": {"lr": 1e-5}}],
        "train": {"packs_per_step": options.ranks},
        "checkpoint": {"every_steps": 200},
    }
    run.config.write_text(yaml.safe_dump(content))
    write_json(run.manifest, {"versions": {}})


def make_store(options: argparse.Namespace, cache: Path) -> Path:
    random_numbers = np.random.default_rng(0)
    num_tokens = NUM_EXAMPLES * options.tokens
    mask = np.ones(num_tokens, bool)
    mask[:: options.tokens] = False
    arrays = {
        "tokens": random_numbers.integers(0, 50_000, num_tokens, dtype=np.uint32),
        "loss_mask": mask,
        "offsets": np.arange(NUM_EXAMPLES + 1, dtype=np.int64) * options.tokens,
        "num_supervised": np.full(NUM_EXAMPLES, options.tokens - 1, np.int32),
        **{name: np.zeros(NUM_EXAMPLES, np.int32) for name in ("task_ids", "source_ids", "file_ids", "instances")},
        **{name: np.arange(NUM_EXAMPLES) for name in ("record_ids", "line_numbers")},
        "prompt_hashes": np.zeros(NUM_EXAMPLES, np.uint64),
        "duplicates": np.zeros((0, 3), np.int64),
        "duplicate_prompts": np.zeros(0, np.uint64),
        "token_keys": np.zeros(50_000, np.uint64),
    }
    path = cache / "tokens" / fingerprint({"made": "here"})
    publish_arrays(path, arrays, {"tasks": ["t"], "sources": ["s"]})
    return path


def make_plan(options: argparse.Namespace, stage: StageFolder, store: str) -> None:
    num_packs = options.steps * options.ranks
    arrays = {
        "example_ids": np.random.default_rng(1).integers(0, NUM_EXAMPLES, num_packs),
        "starts": np.arange(num_packs + 1, dtype=np.int64),
        "num_tokens": np.full(num_packs, options.tokens, np.int64),
        "num_supervised": np.full(num_packs, options.tokens - 1, np.int64),
    }
    inputs = {"store": store, "data": {"made": "here"}, "packs_per_step": options.ranks}
    about = {
        "inputs": inputs,
        "num_steps": options.steps,
        "num_packs": num_packs,
        "num_tokens": num_packs * options.tokens,
    }
    publish_arrays(stage.packs, arrays, about)


def make_steps(options: argparse.Namespace, run: RunFolder, stage: StageFolder, store: Path) -> None:
    """Ledger, metrics and attempts: each of them but the last ends in an error of all ranks."""
    packs = [range(step * options.ranks, (step + 1) * options.ranks) for step in range(options.steps)]
    digests = [found.digest for found in digest_steps(stage.packs, store, packs)]
    rng = random.Random(2)
    ends = [*sorted(rng.sample(range(options.steps), options.restarts)), options.steps]
    first = 0
    with stage.metrics.open("w") as metrics:
        for attempt, end in enumerate(ends, start=1):
            begin_attempt(options, run, attempt, first, end)
            writer = LedgerWriter(stage.ledger, attempt)
            writer.resume(first)
            for step in range(first, end):
                writer.append(LedgerEntry(step, attempt, options.ranks, packs[step], digests[step], True))
                metrics.write(json.dumps(asdict(metrics_of(step, attempt, options))) + "\n")
            first = max(first, end - end % 200)


def begin_attempt(options: argparse.Namespace, run: RunFolder, attempt: int, first: int, end: int) -> None:
    folder = run.attempt(attempt)
    folder.path.mkdir(parents=True)
    write_began(folder, options.ranks)
    for rank in range(options.ranks):
        folder.rank(rank).write_text(json.dumps({"pid": 1000 + rank, "node": f"node-{rank // 8}"}))
        folder.log(rank).write_text("")
    if attempt > 1:
        EventLog(folder, 0).add("restarted", f"attempt {attempt - 1} ended: rank 7 was gone")
    EventLog(folder, 0).add("resumed", f"attempt {attempt}", stage="only", step=first)
    if end < options.steps:
        facts: dict[str, Any] = {"of": "machine", "error": "DistError", "stage": "only", "step": end, "place": "train"}
        for rank in range(options.ranks):
            EventLog(folder, rank).add("failed", f"stage only, step {end}: DistError: a peer is gone", **facts)


def metrics_of(step: int, attempt: int, options: argparse.Namespace) -> StepMetrics:
    tokens = options.ranks * options.tokens
    return StepMetrics("only", step, options.steps, 2.0, 1.0, 1e-5, tokens, tokens, 2.0, 0.0, 40.0, attempt, 1e9 + step)


def publish(path: Path, files: dict[str, int], about: dict[str, Any]) -> None:
    with written_aside(path, "made") as aside:
        for name, num_bytes in files.items():
            (aside / name).write_bytes(random.Random(name).randbytes(num_bytes))
        publish_folder(aside, path, about)


def publish_arrays(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    with written_aside(path, "made") as aside:
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        publish_folder(aside, path, about)


if __name__ == "__main__":
    main()
