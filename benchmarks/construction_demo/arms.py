"""The configs of the demonstration: one that constructs, and the trainings with and without what was made.

    without     the small set alone, each task as often as any other: rare records are repeated
    approved    with what is approved of all rounds: all of one for which a sample stands, what was accepted of others
    unreviewed  with all that the first round made, and nobody has looked at

All have the same base model, tokens, rate and questions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.construction_demo.data import TRAINED, UNSEEN, Amounts, rare_tasks, trained_tasks, unseen_tasks
from benchmarks.construction_demo.rounds import Plan
from benchmarks.construction_demo.teacher import NUM_SHOWN
from benchmarks.learning.arms import Arm
from benchmarks.learning.asked import ask_tasks
from benchmarks.learning.experiments import BASE, Experiment, Group, IsIn
from benchmarks.learning.zoo.tasks import TASKS

WITHOUT, APPROVED, UNREVIEWED = "without", "approved", "unreviewed"
MODELS = (WITHOUT, APPROVED, UNREVIEWED)
EXPERIMENT = Experiment(
    title="Constructed records of rare tasks",
    models=(BASE, *MODELS),
    groups=(
        Group("rare tasks", 0),
        Group("rare tasks, unseen wordings", 0),
        Group("rare tasks by sample", 0),
        Group("frequent tasks", 0),
        Group("unseen tasks", 0),
        Group("unseen tasks", 3),
    ),
    pairs=((WITHOUT, APPROVED), (WITHOUT, UNREVIEWED), (UNREVIEWED, APPROVED)),
    base_of=WITHOUT,
)
_TESTS = ("test", "unseen_wordings")
_RATE = 1e-3
_DRAWN = {"temperature": 0.8, "top_p": 0.9, "max_tokens": 64}
Config = dict[str, Any]
Sources = Sequence[Mapping[str, Any]]


def members(by_sample: Sequence[str]) -> dict[str, IsIn]:
    """Group → whether a question is in it; `by_sample` are the tasks of the last round."""
    return {
        "rare tasks": lambda arm, task, source: task in rare_tasks() and source == "test",
        "rare tasks, unseen wordings": lambda arm, task, source: task in rare_tasks() and source == "unseen_wordings",
        "rare tasks by sample": lambda arm, task, source: task in by_sample and source == "test",
        "frequent tasks": lambda arm, task, source: (
            TASKS[task].cluster in arm.trained and task not in rare_tasks() and source == "test"
        ),
        "unseen tasks": lambda arm, task, source: TASKS[task].cluster in arm.unseen,
    }


def construction_config(folder: Path, teacher: Path, plan: Plan, made: Path, num: int, seed: int) -> Config:
    """That of `sft construct`: more of the plan's tasks by the config's own model, which also says how sure it is."""
    return {
        **_config(folder, teacher, num_tokens=1000),
        "run": {"name": "construction", "dir": str(folder / "runs" / f"construction-{seed}"), "seed": seed},
        "construct": {
            "recipes": [{"kind": "magpie", "tasks": [*plan.tasks], "num": num, "shots": NUM_SHOWN, **_DRAWN}],
            # Wordings are the zoo's own: only an equal prompt, or an equal record, is a copy.
            "filters": {
                "form": {"min_words": 2},
                "copies": {"similarity_to_existing": None, "near": None},
                "overlap_with_heldout": "remove",
                "difficulty": {"max_ifd": None, "max_loss": plan.max_loss},
            },
            "card": {"licence": "CC0 1.0", "language": ["en"]},
            "out": str(made),
        },
    }


def arms(
    folder: Path, base: Path, approved: Sources, unreviewed: Sources, amounts: Amounts, num_tokens: int
) -> list[Arm]:
    """All trainings; those with made records read these sources, too."""
    extra: dict[str, Sources] = {WITHOUT: (), APPROVED: approved, UNREVIEWED: unreviewed}
    asked = dict.fromkeys(trained_tasks(), amounts.asked_frequent)
    asked |= dict.fromkeys(rare_tasks(), amounts.asked_rare) | dict.fromkeys(unseen_tasks(), amounts.asked_unseen)
    shots = {task: (0, 3) if task in unseen_tasks() else (0,) for task in asked}
    found = []
    for seed in amounts.seeds:
        for name, sources in extra.items():
            config = _config(folder, base, num_tokens)
            config["data"]["sources"] += sources
            config["data"]["unreviewed"] = name == UNREVIEWED
            config["evaluate"] = {**ask_tasks(asked, shots, max(asked.values())), "before_training": name == WITHOUT}
            run = {"name": name, "dir": str(folder / "runs" / f"{name}-{seed}"), "seed": seed}
            found.append(Arm("construction", name, seed, TRAINED, UNSEEN, {"run": run, **config}))
    return found


def _config(folder: Path, base: Path, num_tokens: int) -> Config:
    form = {"format": "instruction", "task": {"column": "task"}}
    sources = [{"name": name, "path": str(folder / "data" / f"{name}.jsonl"), **form} for name in ("train", *_TESTS)]
    holdout = {"share": 0.0, "tasks": unseen_tasks(), "sources": [*_TESTS], "decontaminate": "ignore"}
    stage = {
        "name": "tune",
        "mixture": {"rates": "equal"},
        "budget": {"tokens": num_tokens},
        "optimizer": {"lr": _RATE, "betas": [0.9, 0.98], "weight_decay": 0.01, "min_lr_ratio": 0.1},
    }
    return {
        "model": {"path": str(base), "dtype": "float32"},
        "data": {"sources": sources, "max_len_tokens": 256, "holdout": holdout, "cache_dir": str(folder / "cache")},
        "stages": [stage],
        "train": {"pack_len_tokens": 512, "packs_per_step": 4, "activation_checkpointing": "none"},
        "checkpoint": {"every_steps": 10_000, "keep_last": 1},
        "cluster": {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0},
        "logging": {"tensorboard": False},
    }
