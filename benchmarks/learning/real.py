"""An experiment on public data: does a real model do better on tasks that it never saw, and what does balance do?

    python -m benchmarks.learning real --real-model FOLDER --real-data FOLDER

The model is SmolLM2-135M-Instruct, as `make quickstart` makes it. The data is a folder with `dolly_train.jsonl`
(databricks-dolly-15k), `gsm8k_train.jsonl`, `mbpp_train.jsonl`, `p3_subset.jsonl` (T0's training sample of
yizhongw/self-instruct: prompt, completion, `_template`) and `glaive_toolcall_en_demo.jsonl`. Each seed holds out
another cluster of P3's templates.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.learning.arms import FIRST_ANSWERS, Arm, Config

REAL = "real"
NUM_TOKENS = 20_000
"""Of each arm, prompts included."""
_NUM_UNSEEN_ASKED = 20
_NUM_TRAINED_ASKED = 8
_RATE = 2e-4
_EXACT: Config = {"name": "exact_match"}
_ROUGE: Config = {"name": "rouge_l"}


class _Asked(NamedTuple):
    """A task that is asked."""

    score: Config
    most_tokens: int
    options: tuple[str, ...] = ()


_YES_NO = _Asked(_EXACT, 8, ("Yes", "No"))
_UNSEEN: Mapping[str, Mapping[str, _Asked | None]] = {
    "multiple choice": {
        "commonsense_qa_question_answering": _Asked(_EXACT, 12),
        "quarel_choose_between": _Asked(_EXACT, 12),
        "qasc_qa_with_separated_facts_1": _Asked(_EXACT, 12),
        "commonsense_qa_answer_given_question_without_options": None,
        "cosmos_qa_context_question_description_answer_text": None,
        "cosmos_qa_context_description_question_text": None,
    },
    "verification": {"qasc_is_correct_1": _YES_NO, "paws_labeled_final_Rewrite": _YES_NO},
    "concepts": {
        "common_gen_Put_together": _Asked(_ROUGE, 24),
        "common_gen_sentence_to_concepts": _Asked(_ROUGE, 16),
        "common_gen_topics_from_the_sentence": _Asked(_ROUGE, 16),
    },
}
"""Cluster → its tasks. Those with none are held out with the others, and not asked: their prompts are long."""
_RARE: Mapping[str, _Asked] = {
    "quartz_answer_question_below": _Asked(_EXACT, 12),
    "wiki_bio_guess_person": _Asked(_EXACT, 12),
    "adversarial_qa_dbidaf_based_on": _Asked(_EXACT, 16),
    "gigaword_TLDR": _Asked(_ROUGE, 32),
}
"""Tasks of 200 records that every arm is trained on."""
_FREQUENT: Mapping[str, _Asked] = {
    "gsm8k": _Asked({"name": "number"}, 96),
    "open_qa": _Asked(_ROUGE, 48),
    "classification": _Asked(_ROUGE, 48),
}
"""The same of 2,136 to 7,473 records."""
_MIXTURES: Mapping[str, Config] = {"natural": {"rates": "natural"}, "equal": {"rates": "equal"}}


def real_arms(folder: Path, model: Path, data: Path, device: str = "cpu") -> list[Arm]:
    """All arms of the experiment; their runs will lie in `folder`."""
    found = []
    for seed, (cluster, tasks) in enumerate(_UNSEEN.items(), 1):
        for name, mixture in _MIXTURES.items():
            arm = Arm(REAL, name, seed, (), (cluster,), {})
            run = {"name": name, "dir": str(folder / "runs" / arm.file), "seed": seed}
            cluster_of_gpus = {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": int(device == "cuda")}
            config = {
                "run": run,
                "model": {"path": str(model), "dtype": "bfloat16"},
                "data": _data(data, [*tasks], folder / "cache"),
                "stages": [_stage(mixture)],
                "train": {"pack_len_tokens": 512, "packs_per_step": 2, "activation_checkpointing": "none"},
                "checkpoint": {"every_steps": 10_000, "keep_last": 1},
                "evaluate": {
                    **_evaluate({name: asked for name, asked in tasks.items() if asked}),
                    "before_training": name == FIRST_ANSWERS[REAL],
                },
                "logging": {"tensorboard": False},
                "cluster": cluster_of_gpus,
            }
            found.append(arm._replace(config=config))
    return found


def real_members() -> Mapping[str, Any]:
    """The name of a group → whether a question is in it, as `benchmarks.learning.experiments.members`."""
    return {
        "unseen tasks": lambda arm, task, source: task in _UNSEEN[arm.unseen[0]],
        "rare tasks": lambda arm, task, source: task in _RARE,
        "frequent tasks": lambda arm, task, source: task in _FREQUENT,
    }


def _data(data: Path, held_out: list[str], cache: Path) -> Config:
    def source(name: str, file: str, form: str, task: Any, columns: Mapping[str, str] | None = None) -> Config:
        own = {"name": name, "path": str(data / file), "format": form, "task": task}
        return {**own, "columns": dict(columns)} if columns else own

    dolly = {"instruction": "instruction", "input": "context", "output": "response"}
    gsm8k = {"prompt": "question", "completion": "answer"}
    return {
        "sources": [
            source("dolly", "dolly_train.jsonl", "instruction", {"column": "category"}, dolly),
            source("gsm8k", "gsm8k_train.jsonl", "prompt_completion", "gsm8k", gsm8k),
            source("mbpp", "mbpp_train.jsonl", "prompt_completion", "mbpp", {"prompt": "text", "completion": "code"}),
            source("p3", "p3_subset.jsonl", "prompt_completion", {"column": "_template"}),
            source("tools", "glaive_toolcall_en_demo.jsonl", "sharegpt", "tool_calls"),
        ],
        "max_len_tokens": 512,
        "holdout": {"share": 0.1, "tasks": held_out, "decontaminate": "remove"},
        "cache_dir": str(cache),
    }


def _stage(mixture: Mapping[str, Any]) -> Config:
    return {
        "name": "tune",
        "mixture": dict(mixture),
        "budget": {"tokens": NUM_TOKENS},
        "optimizer": {"lr": _RATE, "warmup_ratio": 0.1, "min_lr_ratio": 0.1},
    }


def _evaluate(unseen: Mapping[str, _Asked]) -> Config:
    """Unseen tasks without examples and with three, some of the trained ones without."""
    tasks = {}
    for asked, num, shots in ((unseen, _NUM_UNSEEN_ASKED, [0, 3]), (_trained(), _NUM_TRAINED_ASKED, [0])):
        for name, own in asked.items():
            tasks[name] = {
                "score": own.score,
                "max_answers": num,
                "shots": shots,
                "max_new_tokens": own.most_tokens,
            }
            if own.options:
                tasks[name] = {"options": [*own.options], "max_answers": num, "shots": shots}
    return {"max_examples_per_task": _NUM_UNSEEN_ASKED, "answers_per_task": 0, "tasks": tasks}


def _trained() -> Mapping[str, _Asked]:
    return {**_RARE, **_FREQUENT}
