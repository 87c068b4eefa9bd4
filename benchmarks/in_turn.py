"""Sides of a benchmark, measured in turn, so that a machine whose speed drifts slows all of them."""

import json
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence

Side = Callable[[], float]


def measure_in_turn(
    sides: Mapping[str, Side], num_runs: int, say: Callable[[str], object] = lambda text: None
) -> dict[str, list[float]]:
    """Every side's speed, in tokens a second, run by run."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(num_runs):
        for name, measure in sides.items():
            speeds[name].append(measure())
            say(f"run {run + 1}: {name} {speeds[name][-1]:,.0f} tokens/s")
    return speeds


def run_command(command: Sequence[str], variables: Mapping[str, str] | None = None) -> float:
    """`tokens_per_second` of the last JSON line that the command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=variables)
    found = [line for line in done.stdout.splitlines() if '"tokens_per_second"' in line]
    if done.returncode or not found:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return float(json.loads(found[-1])["tokens_per_second"])


def ratios_of(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Run by run."""
    return [mine / other for mine, other in zip(ours, others, strict=True)]


def spread(values: Sequence[float], form: str) -> str:
    """Median, least and largest, in words."""
    return f"median {statistics.median(values):{form}}, from {min(values):{form}} to {max(values):{form}}"
