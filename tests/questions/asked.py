"""Questions of small runs, made as a run makes them: records → store → held-out plan → questions."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from sft.config import SftConfig
from sft.config_file import build_config
from sft.data.block_preparer import BlockPreparer
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.questions.question import Question
from sft.questions.question_set import open_questions
from sft.training.workload import prepare_workload


class Asked(NamedTuple):
    config: SftConfig
    store: TokenStore
    preparer: BlockPreparer
    folder: Path | None
    questions: list[Question]


def config_of(folder: Path, model: Path, sources: list[dict[str, Any]], **sections: Any) -> SftConfig:
    data = {"sources": sources, "cache_dir": str(folder / "cache"), "max_len_tokens": 256, "holdout": {"share": 0.3}}
    return build_config(
        {
            "run": {"name": "asked", "dir": str(folder / "run")},
            "model": {"path": str(model), "dtype": "float32", **sections.pop("model", {})},
            "data": {**data, **sections.pop("data", {})},
            "stages": [{"name": "all", "budget": {"epochs": 1}, "optimizer": {"lr": 1e-3}}],
            "train": {"pack_len_tokens": 256, "packs_per_step": 2},
            "evaluate": {"answers_per_task": 4, "max_new_tokens": 8, **sections.pop("evaluate", {})},
            **sections,
        }
    )


def ask(config: SftConfig) -> Asked:
    workload, store, _ = prepare_workload(config)
    questions = [] if workload.questions is None else open_questions(workload.questions)
    preparer = StoreRecipe.of(config.data, config.model).preparer
    return Asked(config, store, preparer, workload.questions, questions)


def write_records(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)
