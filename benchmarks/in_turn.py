"""Sides of a benchmark, measured in turn, so that a machine whose speed drifts slows all of them."""

import json
import statistics
import subprocess
from collections.abc import Callable, Sequence

Side = Callable[[], float]


def compare(ours: str, sides: dict[str, Side], num_runs: int) -> None:
    """Measure every side, in tokens a second, and print medians, spreads and the ratios of ours to the others."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(num_runs):
        for name, measure in sides.items():
            speeds[name].append(measure())
            print(f"run {run + 1}: {name} {speeds[name][-1]:,.0f} tokens/s", flush=True)
    for name, values in speeds.items():
        print(f"{name}: {spread(values, ',.0f')} tokens/s")
    for name in sides:
        if name != ours:
            ratios = [mine / other for mine, other in zip(speeds[ours], speeds[name], strict=True)]
            print(f"{ours} / {name}: {spread(ratios, '.2f')}")


def run_command(command: Sequence[str]) -> float:
    """`tokens_per_second` of the last JSON line that the command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    found = [line for line in done.stdout.splitlines() if '"tokens_per_second"' in line]
    if done.returncode or not found:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return float(json.loads(found[-1])["tokens_per_second"])


def spread(values: Sequence[float], form: str) -> str:
    """Median, least and largest, in words."""
    return f"median {statistics.median(values):{form}}, from {min(values):{form}} to {max(values):{form}}"
