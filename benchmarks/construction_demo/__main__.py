"""The circle, shown: more of what is rare by a local model, approved by a reviewer in a browser, trained and asked.

    python -m benchmarks.construction_demo                   all, into docs/construction.json and docs/CONSTRUCTION.md
    python -m benchmarks.construction_demo --until construct    teacher, construct (with review) or train: no further

Needs Chromium and its driver. The same command goes on with what is there in --folder. All but the teacher is done by
the commands that a user gives: `sft construct`, `sft review`, `sft prepare`, `sft train`.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.construction_demo.arms import EXPERIMENT
from benchmarks.construction_demo.demonstration import Demonstration
from benchmarks.learning.tables import differences_table, in_comments, means_table
from sft.training.process import quiet_third_parties
from tests.review.browser import CHROMIUM, DRIVER

_ROOT = Path(__file__).parents[2]
STEPS = ("teacher", "construct", "train", "all")


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    if DRIVER is None or CHROMIUM is None:
        print("The reviewer needs Chromium and its driver: apt-get install chromium chromium-driver", file=sys.stderr)
        return 2
    quiet_third_parties()
    demonstration = Demonstration(options.folder.absolute(), options.small)
    steps = (demonstration.teach, demonstration.construct, demonstration.train)
    for step in steps[: STEPS.index(options.until) + 1]:
        step()
    if options.until != "all":
        return 0
    found = demonstration.found()
    place = options.folder if options.small else _ROOT / "docs"
    (place / "construction.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    tables = tables_of(found)
    for table in tables.values():
        print(f"\n{table}")
    page = place / "CONSTRUCTION.md"
    if page.is_file():
        page.write_text(in_comments(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/construction-demo"), help="where everything is made")
    parser.add_argument("--until", choices=STEPS, default="all", help="the last step that is done")
    parser.add_argument("--small", action="store_true", help="a few records and tokens, to see that all runs")
    return parser.parse_args(arguments)


def tables_of(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables of docs/CONSTRUCTION.md."""
    means, contrasts = ([one for one in found[name] if one["way"] == "all"] for name in ("means", "contrasts"))
    return {
        "construction-rounds": rounds_table(found["rounds"]),
        "construction": means_table(means, EXPERIMENT.groups),
        "construction-differences": differences_table(contrasts, EXPERIMENT.groups),
    }


def rounds_table(rounds: Sequence[Mapping[str, Any]]) -> str:
    """What each round made, what was read of it, what that says, and what is true."""
    lines = [
        "| round | tasks | loss at most | made | kept | read | wrong | wrong of all, at most | gate | in truth |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for number, one in enumerate(rounds, 1):
        made, sample, truth = one["made"], one["sample"], one["truth"]
        loss = "any" if one["max_loss"] is None else f"{one['max_loss']:g}"
        counts = f"{made['num_made']:,} | {made['num_kept']:,} | {sample['num_reviewed']:,} | {sample['num_wrong']:,}"
        gate = "accepts" if one["is_open"] else "refuses"
        shares = f"{100 * sample['upper']:.1f} % | {gate} | {100 * truth['wrong'] / max(1, truth['num']):.1f} %"
        lines.append(f"| {number} | {len(one['tasks'])} | {loss} | {counts} | {shares} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
