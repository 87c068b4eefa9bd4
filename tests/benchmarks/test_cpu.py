"""The benchmarks on CPUs run from end to end at their smallest, and what they compare is what they say."""

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from benchmarks.figures import Figure, about_machine, said_of, shown, table_of, write_json
from benchmarks.growth import Curve, exponent_of, read_json
from benchmarks.growth import main as growth_main
from benchmarks.growth_plots import draw
from benchmarks.made_data import NUM_RECORDS, in_common_columns, write_data
from benchmarks.turns import Turns
from tests.forked_ranks import ROOT, logs_of, zygote

RANK = """
import sys, time
from benchmarks.turns import Turn
turn, fed = Turn(), 0
for step in range(5):
    if not turn.ask(fed):
        break
    fed = int(sys.argv[1])
    open(sys.argv[2], "a").write(sys.argv[1] + " ")
"""
TWO = """
import subprocess, sys
ranks = [subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]]) for _ in range(2)]
sys.exit(max(rank.wait() for rank in ranks))
"""


def side_of(name: str, tokens: int, seen: Path, program: str = RANK) -> Turns:
    command = [sys.executable, "-c", TWO, program, str(tokens), str(seen)]
    return Turns(name, command, 2, {"PYTHONPATH": str(ROOT)})


def test_sides_step_in_turn_and_tell_what_all_their_ranks_fed(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with side_of("a", 3, seen) as a, side_of("b", 5, seen) as b:
        a.begin()
        b.begin()
        steps = [side.step() for _ in range(2) for side in (a, b)]
    assert [step.num_tokens for step in steps] == [6, 10, 6, 10]
    assert seen.read_text().split() == ["3", "3", "5", "5"] * 2
    assert all(step.seconds > 0 and step.cpu_seconds >= 0 for step in steps)


def test_a_side_whose_rank_fails_says_why(tmp_path: Path) -> None:
    program = "raise ValueError('no such thing')"
    with side_of("a", 3, tmp_path / "seen", program) as a, pytest.raises(SystemExit, match="no such thing"):
        a.begin()


FEW_MODULES = ("argparse", "collections", "difflib", "email", "heapq", "json", "logging", "textwrap", "typing")
"""Of which the words are taken: to read the whole standard library takes seconds."""


@pytest.mark.parametrize("kind", NUM_RECORDS)
def test_data_are_the_same_each_time_and_as_long_as_they_say(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdlib_module_names", frozenset(FEW_MODULES))
    path = write_data(tmp_path / "one", kind, 400)
    assert path.read_bytes().startswith(write_data(tmp_path / "two", kind, 40).read_bytes())
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(row["instruction"] and row["response"] for row in rows)
    asked, said = (
        statistics.median(len(row[column].split()) for row in rows) for column in ("instruction", "response")
    )
    wanted = {"dolly": (10, 31), "gsm8k": (42, 55)}[kind]
    assert (asked, said) == pytest.approx(wanted, rel=0.3)
    has_context = sum(bool(row["context"]) for row in rows) / len(rows)
    assert has_context == pytest.approx(0.3 if kind == "dolly" else 0, abs=0.1)


def test_real_data_of_either_kind_get_common_columns(tmp_path: Path) -> None:
    given = tmp_path / "given"
    rows = [{"question": "q", "answer": "a"}, {"instruction": "i", "context": "c", "response": "r", "category": "x"}]
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = in_common_columns(given, tmp_path / "found").read_text().splitlines()
    assert [list(json.loads(line).values()) for line in found] == [["q", "", "a"], ["i", "c", "r"]]
    assert len(in_common_columns(given, tmp_path / "one", 1).read_text().splitlines()) == 1


def test_a_goal_stands_beside_the_median_and_what_failed_has_missed_it(tmp_path: Path) -> None:
    figures = [
        Figure("speed", "a", [1.0, 2.0, 9.0], least=2.0),
        Figure("speed", "b", [1.0, 2.0, 9.0], least=2.1),
        Figure("time", "c", [1234.5], most=2000),
        Figure("time", "d", [math.nan], most=2000),
        Figure("time", "e", [3.0]),
        Figure("time", "f", (), error="no such thing"),
    ]
    assert [figure.is_missed for figure in figures] == [False, True, False, True, False, True]
    table = table_of(figures).splitlines()
    assert table[2] == "| speed | a | 2.00 | 1.00 | 9.00 | ≥ 2 | met |"
    assert table[3] == "| | b | 2.00 | 1.00 | 9.00 | ≥ 2.1 | missed |"
    assert table[4].startswith("| time | c | 1,23")
    assert table[-1] == "| | f: no such thing |  |  |  |  | FAILED |"
    assert {line.count("|") for line in table} == {8}
    about = about_machine()
    assert about["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert about["versions"]["torch"] in said_of(about)
    write_json(tmp_path / "found.json", figures[:3], about)
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["verdict"] for row in found["figures"]] == ["met", "missed", "met"]
    assert found["versions"] == about["versions"]


def test_figures_have_the_digits_that_count() -> None:
    assert [shown(number) for number in (0.123, 9.87, 12.34, 1234.5)] == ["0.12", "9.87", "12.3", "1,234"]


def test_exponents_are_those_of_powers() -> None:
    assert exponent_of({size: 3 * size**2 for size in (1, 2, 4, 8)}) == pytest.approx(2)
    curve = Curve("tokens", "w", "s", {size: [5.0 + size] * 3 for size in (1, 100, 10_000, 20_000)})
    assert curve.exponent < 0.9 < curve.last_exponent < 1
    assert math.isnan(exponent_of({1: 2.0}))
    assert math.isnan(exponent_of({1: 0.0, 2: 1.0}))


def small_growth(rank: int, size: int, folder: str) -> int:
    """In a fork of the tests' warm process; its own forks are ranks of other groups."""
    dist.destroy_process_group()
    given = ["--small", "--rounds", "1", "--folder", folder, "--json", f"{folder}/growth.json", "--plots", folder]
    return growth_main(["tokens", "layers", "ranks", *given])


@pytest.mark.long
def test_growth_runs_through_and_draws_what_it_found(tmp_path: Path) -> None:
    assert zygote().start(small_growth, 1, tmp_path / "log", str(tmp_path)) == [0], logs_of(tmp_path / "log")
    about, curves = read_json(tmp_path / "growth.json")
    assert about["machine"]["cores"] > 0
    assert [curve.sweep for curve in curves] == [*["tokens a pack"] * 4, *["layers"] * 2, *["ranks"] * 2]
    assert all(len(curve.values) == 2 and min(curve.medians.values()) > 0 for curve in curves)
    assert (tmp_path / "growth-training.png").stat().st_size < 100 * 1024
    assert not list(tmp_path.glob("growth-records.png"))


def test_plots_of_all_curves_stay_small(tmp_path: Path) -> None:
    sizes = (10_000, 100_000, 1_000_000)
    curves = [
        Curve("records", what, unit, {size: [size / 1e4, size / 2e4, size / 3e4] for size in sizes})
        for what, unit in (("sft prepare", "s of CPU"), ("sft prepare", "s"), ("sft prepare", "MiB at the peak"))
    ]
    paths = list(draw(curves, tmp_path))
    assert [path.name for path in paths] == ["growth-records.png"]
    assert paths[0].stat().st_size < 100 * 1024


@pytest.mark.long
def test_the_command_runs_all_that_needs_no_peer(tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    command = [sys.executable, "-m", "benchmarks.cpu", "--small", "--json", str(out), "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["figures"]
    assert [row["error"] for row in found if row["error"]] == [], done.stderr
    assert {row["part"] for row in found} == {"training", "preparation", "growth", "failures"}
    assert "| training | Llama, dolly: sft, tokens/s |" in done.stdout
