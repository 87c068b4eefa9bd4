"""Training speed on this machine: tokens a second of `sft.training`, of a bare loop, and of TRL beside it.

    python -m benchmarks.training_speed MODEL_DIR DATA.jsonl [--rounds 10] [--trl TRL_DIR]

DATA has Dolly's columns (instruction, context, response); TRL_DIR is what `pip install --no-deps --target TRL_DIR trl`
makes. Two ranks over gloo of one thread each; all sides train the same model in float32, on packs of the same length:

    sft    `python -m sft.training` under torchrun, with real ZeRO-3, all that it does between two updates
    bare   `benchmarks.bare_loop`: the same packs, each rank by itself without ZeRO and without any exchange
    trl    TRL's SFTTrainer with `packing=True`, `assistant_only_loss=True` and ZeRO-3 (`benchmarks/trl_peer.py`)

The sides wait while another one steps (`benchmarks.turns`): a round is a step of each, so its ratio compares what ran
within seconds. Printed are the median, least and most over the rounds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.in_turn import ratios_of, spread
from benchmarks.turns import Step, Turns, torchrun

WARM_UP = 3
"""Rounds that are not counted: DeepSpeed records the order of the modules in its first passes."""
ROOT = Path(__file__).parents[1]
PACKS_EACH = 2
"""In a micro-batch, and of a rank in a step."""


class Work(NamedTuple):
    """What the sides train."""

    model: Path
    data: Path
    trl: Path | None = None
    """Where TRL is installed; None: it is not measured."""
    rounds: int = 10
    pack_len: int = 1024
    ranks: int = 2
    rows: int = 1000
    """The records that TRL prepares: enough for its steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--trl", type=Path, help="the folder that TRL is installed in")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--pack-len", type=int, default=1024)
    options = parser.parse_args()
    own = {name: path and path.resolve() for name, path in vars(options).items() if isinstance(path, Path)}
    found = measure(Work(**{**vars(options), **own}), print)
    for name, speeds in tokens_per_second(found).items():
        print(f"{name}: {spread(speeds, ',.0f')} tokens/s")
    for name in found:
        if name != "sft":
            print(f"sft / {name}: {spread(ratios(found, name), '.2f')}")


def measure(work: Work, say: Callable[[str], object] = lambda text: None) -> dict[str, list[Step]]:
    """Side → its steps, round by round."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(build_config(work, folder)))
        path = os.pathsep.join(map(str, filter(None, (ROOT, work.trl))))
        variables = {"PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}
        prepare = [sys.executable, "-m", "launcher", "prepare", str(config)]
        done = subprocess.run(prepare, capture_output=True, text=True, env={**os.environ, **variables}, timeout=600)
        if done.returncode:
            raise SystemExit(f"sft prepare: {done.stderr}")
        programs = {
            "sft": ("-m", "benchmarks.training_in_turn", str(config)),
            "bare": ("-m", "benchmarks.bare_loop", str(config)),
        }
        if work.trl:
            packing = ("--packing", "--pack-len", str(work.pack_len), "--micro", str(PACKS_EACH))
            peer = (str(ROOT / "benchmarks/trl_peer.py"), str(work.model), str(work.data))
            programs["trl"] = (*peer, *packing, "--rows", str(work.rows))
        sides = [
            running.enter_context(Turns(side, torchrun(work.ranks, *program), work.ranks, variables))
            for side, program in programs.items()
        ]
        for side in sides:
            side.begin()
        found: dict[str, list[Step]] = {side.name: [] for side in sides}
        for number in range(work.rounds + WARM_UP):
            for side in sides:
                step = side.step()
                if number >= WARM_UP:
                    found[side.name].append(step)
            if number >= WARM_UP:
                speeds = (f"{name} {steps[-1].tokens_per_second:,.0f}" for name, steps in found.items())
                say(f"round {number - WARM_UP + 1}, tokens/s: {', '.join(speeds)}")
    return found


def tokens_per_second(found: dict[str, list[Step]]) -> dict[str, list[float]]:
    return {name: [step.tokens_per_second for step in steps] for name, steps in found.items()}


def ratios(found: dict[str, list[Step]], other: str) -> list[float]:
    """Our speed to another side's, round by round."""
    speeds = tokens_per_second(found)
    return ratios_of(speeds["sft"], speeds[other])


def build_config(work: Work, folder: Path) -> dict[str, Any]:
    columns = {"input": "context", "output": "response"}
    source = {"name": "data", "path": str(work.data), "format": "instruction", "columns": columns}
    return {
        "run": {"name": "speed", "dir": str(folder / "run")},
        "model": {"path": str(work.model), "dtype": "float32"},
        "data": {
            "sources": [source],
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": work.pack_len,
            "holdout": {"share": 0.0},
        },
        # A step more than will be asked for: the last one would end the run.
        "stages": [
            {"name": "speed", "budget": {"steps": work.rounds + WARM_UP + 2}, "optimizer": {"lr": 1e-3}},
        ],
        "train": {
            "pack_len_tokens": work.pack_len,
            "packs_per_step": work.ranks * PACKS_EACH,
            "packs_per_micro_batch": PACKS_EACH,
            "activation_checkpointing": False,
        },
        "checkpoint": {"every_steps": None},
        "logging": {"tensorboard": False},
    }


if __name__ == "__main__":
    main()
