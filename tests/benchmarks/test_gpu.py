"""`python -m benchmarks.gpu` runs from end to end on a CPU, so that on a GPU it cannot fail for a typo."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import run, switches
from benchmarks.gpu.packs import long_tailed, packs_of
from benchmarks.gpu.part import Part, Row, at_least, at_most, failed
from benchmarks.gpu.parts import ALL_SECONDS, ORDER, PARTS
from tests.forked_ranks import ROOT, logs_of, zygote

REFUSED = """
import runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in {NAMES}
        return None if absent else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""
ABSENT = {"ray", "datasets", "datasketch", "ruamel", "tensorboard", "mlflow", "wandb", "s3fs", "boto3", "cpuinfo"}


def small_run(rank: int, size: int, folder: str) -> int:
    """In a fork of the tests' warm process."""
    return run.run_all("cpu", True, False, Path(folder), None, Path(folder, "found.json"))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gpu")
    codes = zygote().start(small_run, 1, folder / "log", str(folder))
    assert codes == [0], logs_of(folder / "log")
    content: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return content


@pytest.mark.long
def test_every_part_runs_and_meets_its_goals(found: dict[str, Any]) -> None:
    rows = {part["part"]: [Row.of_json(row) for row in part["rows"]] for part in found["parts"]}
    assert sorted(rows) == [part.number for part in PARTS]
    assert all(rows.values())
    every = [row for of_part in rows.values() for row in of_part]
    assert [row.error for row in every if row.error] == []
    assert sum(len(row.goals) for row in every) >= 20
    assert all(goal.is_met for row in every for goal in row.goals)


def test_all_parts_together_fit_into_seven_minutes() -> None:
    assert sorted(ORDER) == [part.number for part in PARTS] == list(range(10))
    assert sum(part.seconds for part in PARTS) <= ALL_SECONDS < 420


def test_a_goal_that_is_missed_or_no_number_counts_in_the_exit_code(tmp_path: Path) -> None:
    report = run.Report(tmp_path / "found.json")
    report.add(PARTS[0], Row("good", {"x": 1.0}, (at_most("x", 1.0, 1.0), at_least("x", 1.0, 1.0))))
    assert report.num_missed == 0
    report.add(PARTS[1], Row("bad", {}, (at_most("x", 1.1, 1.0), at_least("x", math.nan, 1.0))))
    report.add(PARTS[1], failed("worse", ValueError("no\nsuch thing")))
    assert report.num_missed == 3
    content = json.loads((tmp_path / "found.json").read_text())
    read = [Row.of_json(row) for row in content["parts"][1]["rows"]]
    assert [row.text for row in read] == [row.text for row in report.rows[1]]
    assert "x ≥ 1: MISSED (nan)" in read[0].text
    assert os.listdir(tmp_path) == ["found.json"]


def test_packs_are_full_and_the_same_everywhere() -> None:
    lengths = long_tailed(1_000_000, 8192)
    assert sum(lengths) == 1_000_000
    assert 180 < float(np.mean(lengths)) < 220
    assert 0.005 < float(np.mean(np.array(lengths) > 1200)) < 0.02
    first, second = packs_of(3, 64, 100), packs_of(3, 64, 100)
    for pack, same in zip(first, second, strict=True):
        assert len(pack.input_ids) == pack.cu_seqlens[-1] == 64
        assert not pack.loss_mask[pack.cu_seqlens[:-1]].any()
        assert pack.loss_mask.any()
        np.testing.assert_array_equal(pack.input_ids, same.input_ids)


def test_every_switch_is_a_field_of_the_config() -> None:
    known, lacking = switches.known()
    assert (len(known), lacking) == (len(switches.SWITCHES), [])
    assert not switches.is_known("train.no_such_field")
    assert not switches.is_known("nowhere.engine")
    assert switches.all_off()["model.kernels"] == "none"
    assert switches.all_on()["model.kernels"] == "auto", "Liger is only tried"


@pytest.mark.long
def test_it_runs_without_the_packages_that_a_gpu_machine_lacks(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    code = REFUSED.replace("{NAMES}", repr(ABSENT))
    command = [sys.executable, "-c", code, "--device", "cpu", "--small", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_a_part_in_a_process_of_its_own_ends_in_time_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_time = Part(9, "a run twice", 0.01, "twice")
    process = run.Process(without_time, "cpu", True, tmp_path)
    rows = list(process.rows(until=math.inf))
    assert rows
    assert {row.what for row in rows} == {"not begun, for want of time"}, rows
    (tmp_path / "file").touch()
    without_folder = run.Process(PARTS[3], "cpu", True, tmp_path / "file" / "folder")
    rows = list(without_folder.rows(until=math.inf))
    assert rows
    assert all(row.error and row.trace for row in rows)
    monkeypatch.setattr(run, "_GRACE_SECONDS", 0.0)
    (tmp_path / "models").mkdir()
    late = Part(8, "it writes a model first", 0.01, "peer")
    [row] = run.Process(late, "cpu", True, tmp_path / "models").rows(until=math.inf)
    assert row.error
    assert "ended by force" in row.error
