"""The arms on public data: their configs are read, and every question is in one group."""

from pathlib import Path

from benchmarks.learning.arms import write_arms
from benchmarks.learning.real import real_arms, real_members
from sft.job_config import load_job


def test_every_asked_task_is_in_one_group_and_what_is_unseen_is_held_out(tmp_path: Path) -> None:
    given = real_arms(tmp_path, tmp_path / "model", tmp_path / "data")
    groups = real_members()
    assert len({arm.file for arm in given}) == len(given) == 6
    for arm, path in zip(given, write_arms(tmp_path, given), strict=True):
        config = load_job(path).sft
        held_out = {*config.data.holdout.tasks}
        for task in config.evaluate.tasks:
            [group] = [name for name, is_in in groups.items() if is_in(arm, task, "p3")]
            assert (group == "unseen tasks") == (task in held_out)
            assert config.evaluate.shots_of(task) == ((0, 3) if task in held_out else (0,))


def test_the_arms_of_a_seed_differ_in_their_mixture_and_in_who_asks_the_first_model(tmp_path: Path) -> None:
    by_seed: dict[int, list[dict[str, object]]] = {}
    for arm in real_arms(tmp_path, tmp_path / "model", tmp_path / "data"):
        [stage] = arm.config["stages"]
        evaluate = {**arm.config["evaluate"], "before_training": None}
        rest = {**arm.config, "run": None, "stages": [{**stage, "mixture": None}], "evaluate": evaluate}
        by_seed.setdefault(arm.seed, []).append(rest)
    assert all(first == second for first, second in by_seed.values())
