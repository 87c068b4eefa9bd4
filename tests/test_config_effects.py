"""What the marks at the config's fields lead to stays what it was: stores, plans and runs that exist are recognised.

`recorded_configs.json` holds what was derived from configs as they were recorded: the fingerprint of the store's
inputs, the inputs of every plan, and the record of the run.
"""

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import yaml

from sft.atomic_files import fingerprint
from sft.config import SftConfig
from sft.config_effects import Effect, inputs_of, sections_of, store_inputs
from sft.config_file import build_config
from sft.config_names import current_keys
from sft.data.planning.plan_inputs import heldout_inputs, planned_inputs, stage_inputs
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.training.run_record import check_run

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("recorded_configs.json").read_text(encoding="utf-8"))
STORE: Any = SimpleNamespace(path=Path("/s/0123"), manifest={"inputs": {"content": "0f"}})
FREE_MAPPINGS = ("columns", "texts", "weights", "replay", "extra", "mixtures")


@pytest.mark.parametrize("name", RECORDED)
def test_what_was_made_by_a_recorded_config_is_found(name: str) -> None:
    recorded = RECORDED[name]
    config = build_config(recorded["record"])
    assert fingerprint({"data": store_inputs(config.data), "model": store_inputs(config.model)}) == recorded["store"]
    for i, inputs in enumerate(recorded["stages"]):
        assert planned_inputs(config, {"inputs": inputs}, i) == stage_inputs(config, i, STORE)
    assert planned_inputs(config, {"inputs": recorded["heldout"]}) == heldout_inputs(config, STORE)


def test_no_two_inputs_of_a_plan_have_one_name() -> None:
    config = build_config(RECORDED["every field"]["record"])
    names = [name for section in sections_of(config) for name in inputs_of(section, *get_args(Effect)[1:-1])]
    assert len(names) == len(set(names))


# ---------------------------------------------------------------- what a resume may change

MAY_CHANGE = {
    *("run.name", "run.dir", "model.trust_remote_code", "model.trust_tokenizer_code"),
    *("from.run", "from.model", "from.checkpoints", "from.mixtures"),
    *(
        f"data.sources.{i}.{key}"
        for i in (0, 1)
        for key in ("path", "split", "subset", "revision", "format", "columns")
    ),
    *("data.max_bad_share", "data.cache_dir", "data.staging", "data.staging_dir"),
    *("train.micro_packs", "train.activation_checkpointing", "train.logits_chunk_tokens"),
    *("train.non_finite", "train.max_skipped_steps"),
    *("deepspeed.offload_optimizer", "deepspeed.offload_parameters", "deepspeed.hpz_partition_size", "deepspeed.extra"),
    *("checkpoint.every_steps", "checkpoint.every_minutes", "checkpoint.keep_last", "checkpoint.keep_every_steps"),
    *("checkpoint.keep_stage_ends", "checkpoint.max_failed_saves", "checkpoint.async"),
    *("evaluate.every_steps", "evaluate.max_examples_per_task", "evaluate.sample_answers", "logging.tensorboard"),
}
BUDGET = {f"stages.2.budget.{unit}" for unit in ("epochs", "steps", "supervised_tokens")}
RATE = {f"stages.2.optimizer.{field}" for field in ("lr", "schedule", "warmup_ratio", "min_lr_ratio")}


@pytest.fixture
def resume(tmp_path: Path) -> Callable[[set[str]], set[str]]:
    """Resumes a run all of whose stages have trained, and whose record differs in these fields; which are refused?"""
    record = deepcopy(RECORDED["every field"]["record"])
    record["run"]["dir"] = str(tmp_path)
    config, run = build_config(record), RunFolder(tmp_path)
    for i, stage in enumerate(config.stages):
        metrics = run.stage(i, stage.name).metrics
        metrics.parent.mkdir(parents=True)
        metrics.touch()

    numbers = {stage.name: str(i) for i, stage in enumerate(config.stages)}

    def resume(paths: set[str]) -> set[str]:
        changed = deepcopy(record)
        for path in paths:
            node = changed
            *parents, key = path.split(".")
            for parent in parents:
                node = node[int(parent) if isinstance(node, list) else parent]
            node[key] = "another"
        run.config.write_text(yaml.safe_dump(changed))
        try:
            check_run(config)
        except UserError as error:
            refused = {line.strip().partition(": was")[0] for line in str(error).splitlines() if ": was" in line}
            return {re.sub(r"(?<=^stages\.)\w+", lambda name: numbers[name[0]], path) for path in refused}
        return set()

    return resume


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(node, dict) and path[-1:] not in [(key,) for key in FREE_MAPPINGS]:
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        for i, value in enumerate(node):
            yield from leaves(value, (*path, str(i)))
    else:
        yield ".".join(path)


def test_a_resume_may_change_what_changes_nothing_and_no_more(resume: Callable[[set[str]], set[str]]) -> None:
    held = set(leaves(RECORDED["every field"]["record"])) - MAY_CHANGE - BUDGET
    held -= {f"stages.{i}.name" for i in range(3)}  # another stage
    assert resume(MAY_CHANGE) == set()
    assert resume(held) == {".".join(map(str, current_keys(path.split("."), SftConfig))) for path in held}


def test_more_budget_may_have_another_learning_rate_and_nothing_else(resume: Callable[[set[str]], set[str]]) -> None:
    assert resume(BUDGET | RATE) == set()
    assert resume(RATE) == RATE
    held = {f"stages.2.optimizer.{field}" for field in ("weight_decay", "betas", "eps", "max_grad_norm")}
    assert resume(BUDGET | RATE | held) == held
    earlier = {path.replace("stages.2", "stages.1") for path in BUDGET | RATE}
    assert resume(earlier) == earlier
