"""What failures cost: a killed worker against a cold start, the stall of an asynchronous checkpoint, loading.

    python -m benchmarks.recovery MODEL_DIR DATA.jsonl --runs 3

Each run is `sft train` with two workers on this machine. Cold start: from the command to the end of the first step.
Recovery: from SIGKILL of a worker to the end of the first step that the next attempt finishes, so with Ray Train's
detection, a new group, the checkpoint's check and load; the steps done again are not counted, as they depend on when
the worker is killed. Stall: of the steps behind a checkpoint, the seconds waited for it, in units of the median step.
Loading: check and load of the same checkpoint by as many ranks as wrote it, and by others.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.in_turn import spread
from sft.attempt_record import read_ranks
from sft.run_events import read_events
from sft.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
EVERY_STEPS = 20
SFT = (sys.executable, "-m", "launcher")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_ADDRESS": ""}


class Job(NamedTuple):
    """What is trained."""

    model: Path
    data: Path
    pack_len: int = 512


def main() -> None:
    options = read_options(__doc__)
    job = Job(options.model, options.data, options.pack_len)
    found: dict[str, list[float]] = {}
    for run in range(options.runs):
        measured = measure(job)
        print(f"run {run + 1}: {json.dumps({name: round(value, 3) for name, value in measured.items()})}", flush=True)
        for name, value in measured.items():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        print(f"{name}: {spread(values, '.3g')}")


def read_options(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pack-len", type=int, default=512)
    return parser.parse_args()


def measure(job: Job) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        config = prepare(build_config(job, Path(folder)), Path(folder))
        started = time.time()
        driver = start_training(config)
        try:
            cold_start = wait_for(run, lambda m: True) - started
            # Behind a published checkpoint.
            wait_for(run, lambda m: m["step"] >= EVERY_STEPS + 5)
            victim = read_ranks(run.attempt(1))[1].pid
            killed = time.time()
            os.kill(victim, signal.SIGKILL)
            recovery = wait_for(run, lambda m: m["attempt"] == 2) - killed
            same_size = load_seconds(run, 2)
            run.stop_file.touch()
            assert driver.wait(300) == 3
            alone = start_training(config, "cluster.workers=1")
            try:
                wait_for(run, lambda m: m["attempt"] == 3)
                run.stop_file.touch()
                alone.wait(300)
            finally:
                alone.kill()
            lines = metrics(run)
        finally:
            driver.kill()
            driver.wait()
        seconds = statistics.median(m["seconds"] for m in lines if m["attempt"] == 2)
        stalls = [m["checkpoint_stall_seconds"] for m in lines if m["checkpoint_stall_seconds"] > 0]
        newest = max(run.stage(0, "only").checkpoints.glob("step-*"))
        num_bytes = sum(path.stat().st_size for path in newest.iterdir())
        num_parameters = sum(json.loads((newest / "manifest.json").read_text())["sizes"].values()) / 3
        return {
            "cold start, s": cold_start,
            "recovery, s": recovery,
            "recovery / cold start": recovery / cold_start,
            "step, s": seconds,
            "stall of a checkpoint, steps": statistics.median(stalls) / seconds,
            "load by 2 ranks, s": same_size,
            "load by 1 rank, s": load_seconds(run, 3),
            "bytes a parameter": num_bytes / num_parameters,
        }


def prepare(content: dict[str, Any], folder: Path) -> Path:
    """Write a job's config into the folder, and prepare its data; returns where the config is."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    subprocess.run([*SFT, "prepare", str(config)], check=True, capture_output=True, env=ENVIRONMENT, timeout=600)
    return config


def start_training(config: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """`sft train`, which writes to the file `log` beside its config."""
    with config.with_name("log").open("ab") as log:
        return subprocess.Popen([*SFT, "train", str(config), *overrides], stdout=log, stderr=log, env=ENVIRONMENT)


def build_config(job: Job, folder: Path) -> dict[str, Any]:
    source = {"name": "data", "path": str(job.data.resolve())}
    return {
        "run": {"name": "recovery", "dir": str(folder / "run")},
        "model": {"path": str(job.model.resolve()), "dtype": "float32"},
        "data": {"sources": [source], "cache_dir": str(folder / "cache"), "max_len_tokens": job.pack_len},
        "stages": [{"name": "only", "budget": {"steps": 2000}, "optimizer": {"lr": 1e-4}}],
        "train": {"pack_len_tokens": job.pack_len, "packs_per_step": 2, "activation_checkpointing": False},
        "evaluate": {"max_examples_per_task": 1},
        "checkpoint": {"every_steps": EVERY_STEPS},
        "logging": {"tensorboard": False},
        "cluster": {"workers": 2},
    }


def metrics(run: RunFolder) -> list[dict[str, Any]]:
    path = run.stage(0, "only").metrics
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_for(run: RunFolder, is_wanted: Any, seconds: float = 300) -> float:
    """When the first step was recorded that is wanted, as Unix time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in metrics(run):
            if is_wanted(line):
                return float(line["time"])
        time.sleep(0.05)
    raise SystemExit("the step did not come")


def load_seconds(run: RunFolder, attempt: int) -> float:
    resumed = [event for event in read_events(run.attempt(attempt)) if event.kind == "resumed"]
    return float(resumed[0].facts["load_seconds"])


if __name__ == "__main__":
    main()
