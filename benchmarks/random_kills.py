"""The part of the time that trains while workers are killed at random, beside what `sft plan` would say of it.

    OMP_NUM_THREADS=1 python -m benchmarks.random_kills MODEL_DIR DATA.jsonl --kills 6 --mean-seconds 30

`sft train` with two workers on this machine, a checkpoint every --every-steps. A worker is killed when the training
has gone on for a time drawn from an exponential distribution, again and again. Measured, from the end of the first step
to that of the first step behind the last restart: seconds of steps that stay, in which training waited for saves, and
from a kill until the next attempt trains; the rest is what was trained again. The estimate is `share_time` of
`sft.sizing.goodput` with the same run's mean time to a kill, restart, stall and writing: it shows whether the shares
follow from them. No kill falls into a restart here, which the estimate is told: a failure and its restarts take M + R,
not M · exp(R / M).
"""

import argparse
import math
import os
import random
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.recovery import Job, build_config, metrics, prepare, start_training, wait_for
from sft.atomic_files import MANIFEST
from sft.attempt_record import read_ranks
from sft.run_folder import RunFolder
from sft.sizing.goodput import FailureCosts, TimeShares, best_interval, share_time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pack-len", type=int, default=512)
    parser.add_argument("--every-steps", type=int, default=10)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--mean-seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, kills = train(options, Path(folder))
        found, costs, interval = evaluate(run, kills, options.every_steps)
    print(f"{len(kills)} kills; " + ", ".join(f"{name} {value:.3g} s" for name, value in costs._asdict().items()))
    print(f"a checkpoint every {interval:.1f} s; the best: {best_interval(costs):.1f} s")
    expected = share_time(interval, told(costs))
    for name in TimeShares._fields:
        print(f"{name}: measured {getattr(found, name):.1%}, estimate {getattr(expected, name):.1%}")


def told(costs: FailureCosts) -> FailureCosts:
    """With a restart that, by the formula for those that fail themselves, takes what one without failures takes."""
    mean = costs.between_failures
    return costs._replace(restart=mean * math.log1p(costs.restart / mean))


def train(options: argparse.Namespace, folder: Path) -> tuple[RunFolder, list[float]]:
    """The run, and when a worker was killed."""
    content = build_config(Job(options.model, options.data, options.pack_len), folder)
    content["checkpoint"] = {"every_steps": options.every_steps, "keep_last": 10_000}
    content["cluster"] |= {"max_failures": -1}
    run, rng, kills = RunFolder(folder / "run"), random.Random(options.seed), []
    driver = start_training(prepare(content, folder))
    try:
        for attempt in range(1, options.kills + 1):
            back = wait_for(run, lambda line, attempt=attempt: line["attempt"] == attempt)
            time.sleep(max(0.0, back + rng.expovariate(1 / options.mean_seconds) - time.time()))
            victim = read_ranks(run.attempt(attempt))[1].pid
            os.kill(victim, signal.SIGKILL)
            kills.append(time.time())
        wait_for(run, lambda line: line["attempt"] == options.kills + 1)
        run.stop_file.touch()
        driver.wait(300)
    finally:
        driver.kill()
        driver.wait()
    return run, kills


def evaluate(run: RunFolder, kills: list[float], every_steps: int) -> tuple[TimeShares, FailureCosts, float]:
    """The shares, the costs that the run had, and its interval between checkpoints in seconds of training."""
    lines = [line for line in metrics(run) if line["attempt"] <= len(kills) + 1]
    first_of = {attempt: next(li for li in lines if li["attempt"] == attempt) for attempt in range(1, len(kills) + 2)}
    # From the first step's end to the end of the first step behind the last restart.
    counted, end = [line for line in lines[1:] if line["attempt"] <= len(kills)], first_of[len(kills) + 1]
    stays: dict[int, dict[str, Any]] = {}
    for before, line in zip([lines[0], *counted], [*counted, end], strict=True):
        if line["attempt"] != before["attempt"]:
            # What was trained behind the checkpoint is undone.
            stays = {step: earlier for step, earlier in stays.items() if step < line["step"]}
        stays[line["step"]] = line
    training = sum(line["seconds"] for line in stays.values())
    saving = sum(line["checkpoint_stall_seconds"] for line in counted)
    restarts = [first_of[i + 2]["time"] - first_of[i + 2]["seconds"] - kill for i, kill in enumerate(kills)]
    total = end["time"] - lines[0]["time"]
    shares = [training / total, saving / total, 0.0, sum(restarts) / total]
    shares[2] = 1 - sum(shares)
    gaps = [kill - (first_of[i + 1]["time"] - first_of[i + 1]["seconds"]) for i, kill in enumerate(kills)]
    gaps[0] -= lines[0]["seconds"]
    stalls = [line["checkpoint_stall_seconds"] for line in counted if line["checkpoint_stall_seconds"] > 0]
    costs = FailureCosts(*map(statistics.fmean, (gaps, restarts, stalls or [0.0], writings(run, counted))))
    return TimeShares(*shares), costs, every_steps * statistics.fmean(line["seconds"] for line in counted)


def writings(run: RunFolder, lines: list[dict[str, Any]]) -> list[float]:
    """From the end of the step that a checkpoint is of until its manifest was there."""
    published = {
        int(path.parent.name.removeprefix("step-")): path.stat().st_mtime
        for path in run.stage(0, "only").checkpoints.glob(f"step-*/{MANIFEST}")
    }
    ends = [(line["step"] + 1, line["time"]) for line in lines]
    # A step may have been trained before, in an attempt that was killed before its checkpoint was whole.
    trained = {
        step: max((end for of, end in ends if of == step and end <= at), default=at) for step, at in published.items()
    }
    return [at - trained[step] for step, at in published.items() if trained[step] < at] or [0.0]


if __name__ == "__main__":
    main()
