"""The arms of the five experiments: the config of each as data, written as YAML that `sft train` takes.

    python -m benchmarks.learning.arms FOLDER BASE      writes FOLDER/configs/EXPERIMENT/ARM-SEED.yaml

Arms of an experiment differ in what it is about and in nothing else: base model, tokens and rate are the same. A seed
changes the order of training, and which cluster is held out. `data` says which files an arm reads.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.data import DATA, write_data
from benchmarks.learning.zoo.tasks import CLUSTERS
from sft.config_yaml import write_yaml
from sft.seeds import derive_seed

SEEDS = (1, 2, 3)
NUM_TOKENS = 500_000
"""Of each arm, all stages together."""
NUM_CLUSTERS = (2, 4, 8, 11)
SPECIAL = "json"
"""The cluster that the stage `special` is about."""
_SPECIAL_SHARE = 0.3
_RATE = 1e-3
Config = dict[str, Any]


class Arm(NamedTuple):
    """One training."""

    experiment: str
    name: str
    seed: int
    config: Config


def arms(folder: Path, base: Path, seeds: Sequence[int] = SEEDS) -> list[Arm]:
    """All arms; their data lies in `folder`, and so will their runs."""
    found = []
    for make in (_clusters, _balance, _stages, _masks_and_words, _packing_and_epochs):
        for experiment, name, seed, changes in make(seeds):
            found.append(Arm(experiment, name, seed, _config(folder, base, (experiment, name, seed), changes)))
    return found


def write_arms(folder: Path, base: Path, seeds: Sequence[int] = SEEDS) -> list[Path]:
    """Write the config of each arm; the paths in their order."""
    paths = []
    for arm in arms(folder, base, seeds):
        path = folder / "configs" / arm.experiment / f"{arm.name}-{arm.seed}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(write_yaml(arm.config), encoding="utf-8")
        paths.append(path)
    return paths


_Change = tuple[str, str, int, Mapping[str, Any]]
"""Experiment, name, seed, and what is not as in the plain arm (see `_config`)."""


def _clusters(seeds: Sequence[int]) -> Iterator[_Change]:
    """Every cluster is held out once of eleven. Fewer are the first of the eleven, so that the arms of a fold nest.

    Each fold has a seed of its own.
    """
    for fold, held_out in enumerate(CLUSTERS):
        others = [name for name in CLUSTERS if name != held_out]
        order = np.random.default_rng(derive_seed(fold, "order of clusters")).permutation(len(others)).tolist()
        for number in NUM_CLUSTERS:
            trained = [others[place] for place in order[:number]]
            changes = {"data": "equal", "trained": trained}
            yield "clusters", f"{number:02}-of-12-without-{held_out}", seeds[0] + fold, changes


def _balance(seeds: Sequence[int]) -> Iterator[_Change]:
    mixtures: dict[str, Config] = {
        "natural": {"rates": "natural"},
        "equal": {"rates": "equal"},
        "temperature": {"rates": "temperature", "temperature": 2.0},
        "capped": {"rates": "natural", "cap": 500},
    }
    for seed in seeds:
        for name, mixture in mixtures.items():
            yield "balance", name, seed, {"mixture": mixture, "trained": _without_one(seed)}


def _stages(seeds: Sequence[int]) -> Iterator[_Change]:
    special = [task.name for task in CLUSTERS[SPECIAL]]
    broad = [task.name for name, tasks in CLUSTERS.items() if name != SPECIAL for task in tasks]
    weights = {name: _SPECIAL_SHARE / len(special) for name in special}
    weights |= {name: (1 - _SPECIAL_SHARE) / len(broad) for name in broad}
    num_special = int(_SPECIAL_SHARE * NUM_TOKENS)
    for seed in seeds:
        yield "stages", "one-stage", seed, {"mixture": {"rates": "weights", "weights": weights}}
        for share in (0.0, 0.1, 0.3):
            replay = {"replay": {"broad": share}} if share else {}
            stages = [
                _stage("broad", {"rates": "equal", "tasks": broad}, NUM_TOKENS - num_special),
                _stage("special", {"rates": "equal", "tasks": special, **replay}, num_special),
            ]
            yield "stages", f"replay-{share:.1f}", seed, {"stages": stages}


def _masks_and_words(seeds: Sequence[int]) -> Iterator[_Change]:
    tag = {"text": "Task type: {task}"}
    variants: dict[str, Config] = {
        "plain": {},
        "loss-on-everything": {"train": "everything"},  # its rows have no prompts that could be held out
        "tag": {"task_tag": {**tag, "dropout": 0.0}},
        "tag-dropout-0.5": {"task_tag": {**tag, "dropout": 0.5}},
        "shown-examples": {"train": "shown"},
        "task-id": {"train": "ids"},
    }
    for seed in seeds:
        for name, changes in variants.items():
            yield "words", name, seed, {**changes, "trained": _without_one(seed)}


def _packing_and_epochs(seeds: Sequence[int]) -> Iterator[_Change]:
    variants: dict[str, Config] = {
        "packed": {},
        "one-example-a-row": {"packing": "one_example"},
        **{f"epochs-{most}": {"mixture": {"rates": "equal", "max_epochs_per_task": most}} for most in (2, 8, 32)},
    }
    for seed in seeds:
        for name, changes in variants.items():
            yield "packing", name, seed, changes


def _without_one(seed: int) -> list[str]:
    """All clusters but one: another one for each seed."""
    names = list(CLUSTERS)
    return [name for name in names if name != names[derive_seed(seed, "held out") % len(names)]]


def _stage(name: str, mixture: Mapping[str, Any], num_tokens: int) -> Config:
    return {
        "name": name,
        "mixture": dict(mixture),
        "budget": {"tokens": num_tokens},
        "optimizer": {"lr": _RATE, "betas": [0.9, 0.98], "weight_decay": 0.01, "min_lr_ratio": 0.1},
    }


def _config(folder: Path, base: Path, key: tuple[str, str, int], changes: Mapping[str, Any]) -> Config:
    """The plain arm with changes.

    `data` is a variant of the zoo, `train` the form of its training records, `trained` the clusters that are not held
    out; `mixture`, `stages`, `task_tag` and `packing` are fields of the config.
    """
    experiment, name, seed = key
    zoo = folder / "data" / changes.get("data", "natural")
    form = DATA[changes.get("train", "records")]
    trained = set(changes.get("trained", CLUSTERS))
    unseen = [task.name for cluster, tasks in CLUSTERS.items() if cluster not in trained for task in tasks]
    tests = ["test", "unseen_wordings"] if form is not DATA["ids"] else ["test_ids"]
    sources = [
        {"name": "train", "path": str(zoo / form.file), "format": form.format, "task": {"column": "task"}},
        *(
            {"name": test, "path": str(zoo / f"{test}.jsonl"), "format": "instruction", "task": {"column": "task"}}
            for test in tests
        ),
    ]
    stages = changes.get("stages", [_stage("tune", changes.get("mixture", {"rates": "equal"}), NUM_TOKENS)])
    if form.format == "tokens":
        trainable = [task.name for cluster in CLUSTERS if cluster in trained for task in CLUSTERS[cluster]]
        stages = [{**stage, "mixture": {**stage["mixture"], "tasks": trainable}} for stage in stages]
    holdout = {
        "share": 0.0,
        "tasks": [] if form.format == "tokens" else unseen,
        "sources": tests,
        "decontaminate": "ignore",
    }
    data: Config = {"sources": sources, "max_len_tokens": 256, "holdout": holdout, "cache_dir": str(folder / "cache")}
    if "task_tag" in changes:
        data["task_tag"] = changes["task_tag"]
    return {
        "run": {"name": name, "dir": str(folder / "runs" / experiment / f"{name}-{seed}"), "seed": seed},
        "model": {"path": str(base), "dtype": "float32"},
        "data": data,
        "stages": stages,
        "train": {
            "pack_len_tokens": 512,
            "packs_per_step": 8,
            "packing": changes.get("packing", "packed"),
            "activation_checkpointing": "none",
        },
        "checkpoint": {"every_steps": 10_000, "keep_last": 1},
        "evaluate": {"max_examples_per_task": 20},
        "logging": {"tensorboard": False},
        "cluster": {"workers": 1, "cpus_per_worker": 1},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("base", type=Path, help="the folder of the base model, from benchmarks.learning.base")
    arguments = parser.parse_args()
    write_data(arguments.folder / "data", arguments.base)
    for path in write_arms(arguments.folder, arguments.base):
        print(path)


if __name__ == "__main__":
    main()
