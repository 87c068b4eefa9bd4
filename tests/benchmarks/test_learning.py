"""The learning experiments run from end to end at their smallest, and what they report is what the runs measured."""

import json
import math
import re
import signal
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from benchmarks.learning.__main__ import main, with_others
from benchmarks.learning.experiments import EXPERIMENTS
from benchmarks.learning.findings import agree
from benchmarks.learning.tables import in_page, tables_of, without_tables
from benchmarks.learning.zoo.tasks import CLUSTERS
from tests.benchmarks import learning_runs
from tests.forked_ranks import DONE, ROOT, logs_of, zygote

ARMS = ("2-clusters", "11-clusters")
HELD_OUT = next(iter(CLUSTERS))
PAGE = "before\n<!-- table: clusters -->\nold\n<!-- end -->\nbehind\n"


def arguments(folder: Path, *more: str) -> list[str]:
    return ["clusters", "--small", "--folder", str(folder), "--arms", *ARMS, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A call that was killed while it trained, and the same one again."""
    folder = tmp_path_factory.mktemp("learning")
    (folder / "LEARNING.md").write_text(PAGE)
    log = folder / "killed"
    assert zygote().start(learning_runs.run_and_die, 1, log, arguments(folder)) == [-signal.SIGKILL], logs_of(log)
    assert list(folder.glob("runs/*/*/stages/0-tune/stage.json"))
    log = folder / "again"
    assert zygote().start(learning_runs.run, 1, log, arguments(folder)) == [DONE], logs_of(log)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Any:
    return json.loads((folder / "learning.json").read_text())


def evaluation(folder: Path, arm: str, name: str = "0-tune") -> Any:
    """What a run measured, after its training or before."""
    return json.loads((folder / "runs" / "clusters" / f"{arm}-1" / "evaluations" / f"{name}.json").read_text())


def mean_of(found: Any, model: str, group: str, shots: int, way: str = "all") -> Any:
    wanted = {"model": model, "group": group, "shots": shots, "way": way}
    [mean] = [one for one in found["clusters"]["means"] if wanted.items() <= one.items()]
    return mean


@pytest.mark.long
def test_after_a_kill_it_goes_on_with_what_is_there(folder: Path) -> None:
    attempts = [len(list(path.glob("attempts/0*"))) for path in sorted(folder.glob("runs/clusters/*"))]
    assert len(attempts) == len(ARMS)
    assert 1 in attempts, "what was finished was trained again"


@pytest.mark.long
def test_what_is_reported_is_what_the_runs_measured(folder: Path, found: Any) -> None:
    """Over the tasks of the held-out cluster, whose questions are all in one group."""
    measured = {arm: evaluation(folder, arm) for arm in ARMS} | {"base": evaluation(folder, ARMS[1], "base")}
    for model, own in measured.items():
        for shots, metric in ((0, "score"), (3, "score@3")):
            scores = [own["tasks"][task.name].get(metric) for task in CLUSTERS[HELD_OUT]]
            value = mean_of(found, model, "unseen tasks", shots)["value"]
            assert value == pytest.approx(fmean(score for score in scores if score is not None), abs=1e-4)


@pytest.mark.long
def test_the_base_model_is_asked_by_one_arm(folder: Path) -> None:
    asked = [path.parts[-3] for path in folder.glob("runs/clusters/*/evaluations/base.json")]
    assert asked == [f"{ARMS[1]}-1"]


@pytest.mark.long
def test_every_question_is_in_the_group_of_its_wording(folder: Path, found: Any) -> None:
    arm = ARMS[1]
    path = folder / "runs" / "clusters" / f"{arm}-1" / "evaluations" / "0-tune.answers.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    own = {task.name for task in CLUSTERS[HELD_OUT]}
    for group, source in (("trained tasks", "test"), ("unseen wordings", "unseen_wordings")):
        asked = [line for line in lines if line["task"] not in own and line["record"].startswith(f"{source}/")]
        assert len(asked) == mean_of(found, arm, group, 0)["num_questions"]
        by_task: dict[str, list[float]] = {}
        for line in asked:
            by_task.setdefault(line["task"], []).append(line["score"])
        assert mean_of(found, arm, group, 0)["value"] == pytest.approx(fmean(map(fmean, by_task.values())), abs=1e-4)


@pytest.mark.long
def test_differences_are_those_of_the_means(found: Any) -> None:
    contrasts = [one for one in found["clusters"]["contrasts"] if one["group"] == "unseen tasks"]
    assert {(one["first"], one["second"]) for one in contrasts} == {("base", ARMS[1]), ARMS}
    for one in contrasts:
        about = "unseen tasks", one["shots"], one["way"]
        first, second = (mean_of(found, one[side], *about) for side in ("first", "second"))
        assert one["value"] == pytest.approx(second["value"] - first["value"], abs=2e-4)
        assert (one["paired"], one["num_pairs"]) == ("questions", first["num_questions"])


@pytest.mark.long
def test_pictures_and_tables_are_made_from_the_file(folder: Path, found: Any, tmp_path: Path) -> None:
    page = (folder / "LEARNING.md").read_text()
    assert page == in_page(PAGE, found) == PAGE.replace("old", tables_of(found)["clusters"])
    copy = tmp_path / "learning.json"
    copy.write_text(json.dumps(found))
    assert main(["--from-json", str(copy), "--page", str(tmp_path / "none.md")]) == 0
    assert (tmp_path / "learning-clusters.png").read_bytes() == (folder / "learning-clusters.png").read_bytes()


@pytest.mark.long
def test_a_folder_of_other_settings_is_refused(folder: Path) -> None:
    log = folder / "other"
    other = arguments(folder, "--device", "cuda")
    assert zygote().start(learning_runs.run, 1, log, other) != [DONE]
    assert "of other settings than these" in logs_of(log)


def test_trainings_that_disagree_show_no_difference() -> None:
    assert agree([0.1, 0.2, 0.1], 0.13)
    assert not agree([0.3, 0.2, -0.1], 0.13)
    assert not agree([0.1, 0.2], 0.15)
    assert agree([0.1] * 10 + [-0.1] * 2, 0.07)
    assert not agree([0.1] * 9 + [-0.1] * 3, 0.05)
    assert not agree([0.0, 0.1, 0.1], math.nan)


def test_the_page_has_the_tables_of_its_file() -> None:
    page = (ROOT / "docs" / "LEARNING.md").read_text(encoding="utf-8")
    path = ROOT / "docs" / "learning.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    assert page == in_page(without_tables(page), found)
    assert {name.partition("-")[0] for name in re.findall("<!-- table: (.*) -->", page)} == set(EXPERIMENTS)


def test_experiments_that_were_measured_before_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "learning.json"
    path.write_text(json.dumps({"words": 1, "stages": 2}))
    assert list(with_others(path, {"clusters": 3, "words": 4}).items()) == [
        ("clusters", 3),
        ("stages", 2),
        ("words", 4),
    ]
