"""Training speed on this machine: tokens a second of `sft.training`, and of a peer's command beside it.

usage: python benchmarks/training_speed.py MODEL_DIR DATA.jsonl [--runs 3] [--peer 'COMMAND']

DATA has Dolly's columns (instruction, context, response). Both sides run in turn, so that a machine whose speed drifts
slows both. The peer's command prints a JSON line with `tokens_per_second`: real tokens, not padding, over all ranks,
after its warm-up. Printed are the median, least and most of each side, and the ratio run by run.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from in_turn import Side, compare, run_command

WARM_UP_STEPS = 3
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--pack-len", type=int, default=1024)
    parser.add_argument("--micro", type=int, default=2)
    parser.add_argument("--peer", help="a command that prints a JSON line with tokens_per_second")
    options = parser.parse_args()
    sides: dict[str, Side] = {"sft": lambda: measure_ours(options)}
    if options.peer:
        sides["peer"] = lambda: run_command(shlex.split(options.peer))
    compare("sft", sides, options.runs)


def measure_ours(options: argparse.Namespace) -> float:
    """Real tokens a second over all ranks, after the warm-up, from the run's own metrics."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump(build_config(options, Path(folder))))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        prepare = [sys.executable, "-m", "launcher", "prepare", str(config)]
        subprocess.run(prepare, check=True, capture_output=True, env=environment, timeout=600)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={options.ranks}"]
        subprocess.run(
            [*torchrun, "-m", "sft.training", str(config)],
            check=True,
            capture_output=True,
            env=environment,
            timeout=600,
        )
        lines = (Path(folder) / "run/stages/0-speed/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines][WARM_UP_STEPS:]
    return sum(step["num_tokens"] for step in steps) / sum(step["seconds"] for step in steps)


def build_config(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    columns = {"input": "context", "output": "response"}
    source = {"name": "data", "path": str(options.data), "format": "instruction", "columns": columns}
    return {
        "run": {"name": "speed", "dir": str(folder / "run")},
        "model": {"path": str(options.model), "dtype": "float32"},
        "data": {
            "sources": [source],
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": options.pack_len,
            "holdout": {"share": 0.0},
        },
        "stages": [{"name": "speed", "budget": {"steps": options.steps}, "optimizer": {"lr": 1e-3}}],
        "train": {
            "pack_len_tokens": options.pack_len,
            "packs_per_step": options.ranks * options.micro,
            "packs_per_micro_batch": options.micro,
            "activation_checkpointing": False,
        },
        "checkpoint": {"every_steps": None},
        "logging": {"tensorboard": False},
    }


if __name__ == "__main__":
    main()
