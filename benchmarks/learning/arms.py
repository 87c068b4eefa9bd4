"""The arms of the five experiments: the config of each as data, written as YAML that `sft train` takes.

    python -m benchmarks.learning.arms FOLDER BASE      writes FOLDER/configs/EXPERIMENT/ARM-SEED.yaml

Arms of an experiment differ in what it is about and in nothing else: base model, tokens and rate are the same. A seed
changes the order of training, and which cluster is held out. Arms of two experiments that are the same training share
its run.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.asked import ask_all_tasks, ask_unseen_tasks
from benchmarks.learning.data import DATA, rare_and_frequent, write_data
from benchmarks.learning.scale import FULL, Scale
from benchmarks.learning.zoo.tasks import CLUSTERS
from sft.config_yaml import write_yaml
from sft.seeds import derive_seed

NUM_CLUSTERS = (2, 4, 8, 11)
SPECIAL = "json"
"""The cluster that the stage `special` is about."""
SHARES_OF_REPLAY = (0.0, 0.1, 0.3)
EPOCHS = (1, 3, 9)
FIRST_ANSWERS = {
    "clusters": f"{NUM_CLUSTERS[-1]}-clusters",
    "balance": "natural",
    "stages": "one-stage",
    "words": "plain",
    "packing": "packed",
    "real": "equal",
}
"""Experiment → the arm that asks the base model, too. Others ask no more than it does."""
_SPECIAL_SHARE = 0.3
_RARE_SHARE = 0.75
"""Of the arms about epochs: enough that the rare tasks would be repeated often."""
_RATE = 1e-3
Config = dict[str, Any]


class Arm(NamedTuple):
    """One training."""

    experiment: str
    name: str
    seed: int
    trained: tuple[str, ...]
    """The clusters that it is trained on."""
    unseen: tuple[str, ...]
    """Clusters that are asked and were not trained."""
    config: Config
    also_asked: tuple[str, ...] = ()
    """Settings with which the tuned model is asked once more."""

    @property
    def file(self) -> str:
        """Its name in files."""
        return f"{self.experiment}/{self.name}-{self.seed}"


class _Change(NamedTuple):
    """What is not as in the plain arm."""

    name: str
    seed: int
    held_out: str | None
    """A cluster that is not trained, and asked."""
    trained: tuple[str, ...] | None = None
    """The clusters that are trained; default: all others."""
    data: str = "natural"
    """The variant of the zoo."""
    form: str = "records"
    """That of the training records."""
    mixture: Mapping[str, Any] = {"rates": "equal"}
    stages: Sequence[Config] = ()
    """In the place of the only one."""
    packing: str = "packed"
    task_tag: Mapping[str, Any] | None = None


def arms(folder: Path, base: Path, scale: Scale = FULL, device: str = "cpu") -> list[Arm]:
    """All arms; their data lies in `folder`, and so will their runs."""
    found = []
    runs: dict[str, Config] = {}
    for experiment, make in _EXPERIMENTS.items():
        for change in make(scale):
            arm = _arm(experiment, change, scale)
            config = {**_config(arm, change, folder, base, scale), "cluster": _cluster(device)}
            identity = json.dumps([change.seed, config], sort_keys=True)
            run = {"name": change.name, "dir": str(folder / "runs" / arm.file), "seed": change.seed}
            found.append(arm._replace(config={"run": runs.setdefault(identity, run), **config}))
    first = {arm.config["run"]["dir"] for arm in found if arm.name == FIRST_ANSWERS[arm.experiment]}
    for arm in found:
        arm.config["evaluate"]["before_training"] = arm.config["run"]["dir"] in first
    return found


def config_of(folder: Path, arm: Arm) -> Path:
    """Where the config of an arm is."""
    return folder / "configs" / f"{arm.file}.yaml"


def write_arms(folder: Path, given: Sequence[Arm]) -> list[Path]:
    """Write the config of each arm; the paths in their order."""
    paths = []
    for arm in given:
        path = config_of(folder, arm)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(write_yaml(arm.config), encoding="utf-8")
        paths.append(path)
    return paths


def _clusters(scale: Scale) -> Iterator[_Change]:
    """Every cluster is held out once of eleven. Fewer are the first of the eleven, so that the arms of a fold nest.

    Each fold has a seed of its own.
    """
    for fold, held_out in enumerate(list(CLUSTERS)[: scale.folds]):
        others = [name for name in CLUSTERS if name != held_out]
        order = np.random.default_rng(derive_seed(fold, "order of clusters")).permutation(len(others)).tolist()
        for number in NUM_CLUSTERS:
            trained = tuple(others[place] for place in order[:number])
            yield _Change(f"{number}-clusters", 1 + fold, held_out, trained, data="equal")


def _balance(scale: Scale) -> Iterator[_Change]:
    mixtures: dict[str, Config] = {
        "natural": {"rates": "natural"},
        "equal": {"rates": "equal"},
        "temperature": {"rates": "temperature", "temperature": 2.0},
        "capped": {"rates": "natural", "cap": 500},
    }
    for seed in scale.seeds:
        for name, mixture in mixtures.items():
            yield _Change(name, seed, _held_out(seed), mixture=mixture)


def _stages(scale: Scale) -> Iterator[_Change]:
    special = [task.name for task in CLUSTERS[SPECIAL]]
    broad = [task.name for name, tasks in CLUSTERS.items() if name != SPECIAL for task in tasks]
    weights = {name: _SPECIAL_SHARE / len(special) for name in special}
    weights |= {name: (1 - _SPECIAL_SHARE) / len(broad) for name in broad}
    num_special = int(_SPECIAL_SHARE * scale.num_tokens)
    for seed in scale.seeds:
        yield _Change("one-stage", seed, None, mixture={"rates": "weights", "weights": weights})
        for share in SHARES_OF_REPLAY:
            replay = {"replay": {"broad": share}} if share else {}
            stages = [
                _stage("broad", {"rates": "equal", "tasks": broad}, scale.num_tokens - num_special),
                _stage("special", {"rates": "equal", "tasks": special, **replay}, num_special),
            ]
            yield _Change(f"replay-{share:.1f}", seed, None, stages=stages)


def _words(scale: Scale) -> Iterator[_Change]:
    """Masked loss, tags, shown examples and numbers of tasks."""
    tag = {"text": "Task type: {task}"}
    for seed in scale.seeds:
        plain = _Change("plain", seed, _held_out(seed))
        yield plain
        yield plain._replace(name="loss-on-everything", form="everything")  # its rows have no prompts to hold out
        yield plain._replace(name="tag", task_tag={**tag, "dropout": 0.0})
        yield plain._replace(name="tag-dropout-0.5", task_tag={**tag, "dropout": 0.5})
        yield plain._replace(name="shown-examples", form="shown")
        yield plain._replace(name="task-id", form="ids")


def _packing(scale: Scale) -> Iterator[_Change]:
    """Packed and unpacked rows, and how often rare tasks are repeated."""
    rare, _ = rare_and_frequent(scale)
    for seed in scale.seeds:
        plain = _Change("packed", seed, _held_out(seed))
        yield plain
        yield plain._replace(name="one-example-a-row", packing="one_example")
        trained = [task.name for cluster in _others(plain.held_out) for task in CLUSTERS[cluster]]
        num_rare = sum(name in rare for name in trained)
        shares = {True: _RARE_SHARE / num_rare, False: (1 - _RARE_SHARE) / (len(trained) - num_rare)}
        weights = {name: shares[name in rare] for name in trained}
        for most in EPOCHS:
            mixture = {"rates": "weights", "weights": weights, "max_epochs_per_task": most}
            yield plain._replace(name=f"epochs-{most}", mixture=mixture)


_EXPERIMENTS = {
    "clusters": _clusters,
    "balance": _balance,
    "stages": _stages,
    "words": _words,
    "packing": _packing,
}


def _held_out(seed: int) -> str:
    """A cluster: another one for each seed."""
    names = list(CLUSTERS)
    return names[derive_seed(seed, "held out") % len(names)]


def _others(held_out: str | None) -> tuple[str, ...]:
    return tuple(name for name in CLUSTERS if name != held_out)


def _stage(name: str, mixture: Mapping[str, Any], num_tokens: int) -> Config:
    return {
        "name": name,
        "mixture": dict(mixture),
        "budget": {"tokens": num_tokens},
        "optimizer": {"lr": _RATE, "betas": [0.9, 0.98], "weight_decay": 0.01, "min_lr_ratio": 0.1},
    }


def _arm(experiment: str, change: _Change, scale: Scale) -> Arm:
    trained = change.trained or _others(change.held_out)
    unseen = () if change.held_out is None else (change.held_out,)
    also = ("evaluate.tag=never",) if change.task_tag else ()
    return Arm(experiment, change.name, change.seed, trained, unseen, {}, also)


def _config(arm: Arm, change: _Change, folder: Path, base: Path, scale: Scale) -> Config:
    """All but the section `run`."""
    zoo, form = folder / "data" / change.data, DATA[change.form]
    tests = ["test_ids"] if form is DATA["ids"] else ["test", "unseen_wordings"]
    sources = [
        {"name": "train", "path": str(zoo / form.file), "format": form.format, "task": {"column": "task"}},
        *(
            {"name": test, "path": str(zoo / f"{test}.jsonl"), "format": "instruction", "task": {"column": "task"}}
            for test in tests
        ),
    ]
    trained, unseen = ([task.name for cluster in names for task in CLUSTERS[cluster]] for names in arm[3:5])
    untrained = [task.name for name in CLUSTERS if name not in arm.trained for task in CLUSTERS[name]]
    stages = [*change.stages] or [_stage("tune", change.mixture, scale.num_tokens)]
    if form.format == "tokens":
        stages = [{**stage, "mixture": {**stage["mixture"], "tasks": trained}} for stage in stages]
    holdout = {
        "share": 0.0,
        "tasks": [] if form.format == "tokens" else untrained,
        "sources": tests,
        "decontaminate": "ignore",
    }
    data: Config = {"sources": sources, "max_len_tokens": 256, "holdout": holdout, "cache_dir": str(folder / "cache")}
    if change.task_tag is not None:
        data["task_tag"] = dict(change.task_tag)
    return {
        "model": {"path": str(base), "dtype": "float32"},
        "data": data,
        "stages": stages,
        "train": {
            "pack_len_tokens": 512,
            "packs_per_step": 4,
            "packing": change.packing,
            "activation_checkpointing": "none",
        },
        "checkpoint": {"every_steps": 10_000, "keep_last": 1},
        "evaluate": _asked(arm.experiment, change, trained, unseen, scale),
        "logging": {"tensorboard": False},
    }


def _asked(experiment: str, change: _Change, trained: list[str], unseen: list[str], scale: Scale) -> Config:
    if experiment == "clusters":
        return ask_unseen_tasks(trained, unseen, scale)
    # Rows that came as tokens cannot be shown; without unseen tasks, examples are not what is asked about.
    shots = (0,) if experiment == "stages" or DATA[change.form].format == "tokens" else (0, 3)
    asked = ask_all_tasks(trained, unseen, scale, shots)
    return {**asked, "tag": "always"} if change.task_tag else asked


def _cluster(device: str) -> Config:
    return {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": int(device == "cuda")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("base", type=Path, help="the folder of the base model, from benchmarks.learning.base")
    arguments = parser.parse_args()
    write_data(arguments.folder / "data", arguments.base, FULL)
    for path in write_arms(arguments.folder, arms(arguments.folder, arguments.base)):
        print(path)


if __name__ == "__main__":
    main()
