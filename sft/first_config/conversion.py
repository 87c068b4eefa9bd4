"""From the config of another system to one of ours, with a list of what has no equal and what means something else.

Single keys are converted by the table of `sft.foreign`. This module converts what takes several keys together: the
data, the batch, the machines. A key that is not given counts with its default there, so the same run is trained.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sft.errors import UserError
from sft.first_config.commented import Said, without_comments
from sft.first_config.foreign_data import ForeignData, read_foreign_data
from sft.foreign.answers import identify
from sft.foreign.keys import DEFAULTS, KEYS, SAME_MATTER, SYSTEMS, System
from sft.foreign.values import is_on, number, rows_per_step, run_name
from sft.small_files import read_small_json

_SECTIONS = ("run", "model", "data", "stages", "train", "deepspeed", "checkpoint", "evaluate", "logging", "cluster")
_OF_A_STAGE = ("name", "mixture", "budget", "optimizer")
_OF_AN_OPTIMIZER = ("lr", "schedule", "warmup_ratio", "warmup_steps", "min_lr_ratio", "weight_decay", "betas")
_OVERLONG = {"truncate": "truncate", "drop": "drop", "raise": "error"}
_LORA_FACTOR = 10

Fields = dict[str, Any]
"""Path of ours → its value, mostly `Said`."""


class Converted(NamedTuple):
    """A config of ours, and notes on it."""

    content: dict[str, Any]
    missing: list[str]
    """Keys of theirs that have no equal."""
    differing: list[str]
    """Keys that mean something else here."""


def choose_system(content: Mapping[str, Any]) -> System:
    """The system that a config was written for, by its keys.

    Raises:
        UserError: the keys do not show it.
    """
    found = identify(content)
    if len(found) == 1:
        return found[0]
    why = f"its keys belong to {' and to '.join(SYSTEMS[s] for s in found)}" if found else "few of its keys are known"
    raise UserError(f"it is unclear which system it is for: {why}. Name it: --from {', --from '.join(SYSTEMS)}")


def convert(
    theirs: Mapping[str, Any],
    system: System,
    num_gpus: int | None = None,
    mean_tokens: Callable[[Mapping[str, Any]], float | None] = lambda content: None,
) -> Converted:
    """The same run as a config of ours.

    Args:
        theirs: the content of their file.
        system: the system of that file.
        num_gpus: the number of GPUs of the run, which such a config does not contain.
        mean_tokens: the mean length of the examples of a config of ours, if it can be known.

    Raises:
        UserError: it is not instruction tuning, or names no data.
    """
    given = {key: value for key, value in theirs.items() if value is not None}
    _check_task(given)
    beside = {**_defaults(system, given), **given}
    fields: Fields = {}
    missing, differing = [], []
    for name, value in beside.items():
        key, is_given = KEYS.get(name), name in given
        if key is None or system not in key.systems:
            if is_on(value):
                missing.append(f"{name}: {_short(value)}: unknown to this program")
            continue
        ours = key.convert(value, beside)
        if ours == {} and is_given:
            missing.append(f"{name}: {_short(value)}{f': {key.note}' if key.note else ''}")
        for path, converted in (ours or {}).items():
            fields[path] = Said(converted, name if is_given else f"{name}: the default there")
        if ours and key.differs and is_given:
            differing.append(f"{name}: {key.note}")
    if system == "trl" and not is_on(beside.get("assistant_only_loss")):
        differing.append("loss: over the answers only; there, by default, over every token of a conversation")
    data = read_foreign_data(system, beside)
    differing += data.notes
    _add_data(fields, data, system, beside)
    _add_machines(fields, beside, num_gpus, differing)
    _add_names(fields, beside)
    if _trains_adapters(beside) and "stages.0.optimizer.lr" in fields:
        rate = fields["stages.0.optimizer.lr"].value
        why = f"{rate:g} there, for adapters. Training all parameters needs about a tenth of it, and more memory"
        fields["stages.0.optimizer.lr"] = Said(float(f"{rate / _LORA_FACTOR:g}"), why)
    content = _nested(fields)
    _set_step(content, system, beside, mean_tokens(without_comments(content)), differing)
    return Converted(content, missing, list(dict.fromkeys(differing)))


def _check_task(given: Mapping[str, Any]) -> None:
    other = [given.get("rl"), given.get("reward_model"), given.get("stage") if given.get("stage") != "sft" else None]
    if task := next((value for value in other if value), None):
        raise UserError(f"its task is {task}: only instruction tuning (SFT) is trained here")


def _defaults(system: System, given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of keys whose setting no given key decides."""
    settled = set(given).union(*(matter for matter in SAME_MATTER if matter & given.keys()))
    return {key: value for key, value in DEFAULTS[system].items() if key not in settled}


def _add_data(fields: Fields, data: ForeignData, system: System, beside: Mapping[str, Any]) -> None:
    fields["data.sources"] = data.sources
    if data.held_out:
        fields["data.holdout.sources"] = data.held_out
    fields.setdefault("data.duplicates", Said("keep", f"as in {SYSTEMS[system]}; the default here is `remove`"))
    given = beside.get("excess_length_strategy", "drop" if system == "axolotl" else "truncate")
    fields["data.overlong"] = Said(_OVERLONG.get(str(given), "truncate"), "cuts prompts, never a part of an answer")
    if data.shares:
        shares = {name: share for name, share in data.shares.items() if share > 0}
        fields["stages.0.mixture"] = {"rates": "weights", "weights": shares, "unit": "examples"}


def _add_machines(fields: Fields, beside: Mapping[str, Any], num_gpus: int | None, differing: list[str]) -> None:
    if num_gpus is not None:
        fields["cluster.workers"] = Said(num_gpus, "GPUs, one for each worker")
    fields.setdefault("cluster.workers", Said(1, "the config does not give the number of GPUs: use --gpus N"))
    fields["cluster.gpus_per_worker"] = Said(1, "0 trains on CPUs")
    zero = _deepspeed(beside.get("deepspeed"), differing)
    for theirs, ours in (("offload_optimizer", "offload_optimizer"), ("offload_param", "offload_parameters")):
        place = zero.get(theirs)
        if isinstance(place, Mapping) and place.get("device") in ("cpu", "nvme"):
            fields[f"deepspeed.{ours}"] = Said("cpu", f"{theirs}: {place['device']}")
    sharding = beside.get("fsdp_config")
    if isinstance(sharding, Mapping) and is_on(sharding.get("offload_params", sharding.get("fsdp_offload_params"))):
        fields |= {
            f"deepspeed.{ours}": Said("cpu", "fsdp_config") for ours in ("offload_optimizer", "offload_parameters")
        }


def _deepspeed(given: Any, differing: list[str]) -> Mapping[str, Any]:
    """The section zero_optimization of DeepSpeed's config, from a file or inline; empty where there is none."""
    if isinstance(given, str):
        path = Path(given).expanduser()
        if not path.is_file():
            differing.append(f"deepspeed: {given} is not here: whether it offloads is unknown; ZeRO-3 is always on")
            return {}
        given = read_small_json(path, "DeepSpeed's config")
    zero = given.get("zero_optimization") if isinstance(given, Mapping) else None
    if not isinstance(zero, Mapping):
        return {}
    if zero.get("stage") != 3:
        differing.append(f"deepspeed: stage {zero.get('stage')} there; here parameters are split too (ZeRO-3)")
    return zero


def _add_names(fields: Fields, beside: Mapping[str, Any]) -> None:
    folder = fields.setdefault("run.dir", Said("runs/converted", "output_dir is not given")).value
    named = run_name(Path(str(folder)).name, beside) or {"run.name": "converted"}
    fields.setdefault("run.name", Said(named["run.name"], "the last part of run.dir"))
    fields["stages.0.name"] = "sft"


def _trains_adapters(beside: Mapping[str, Any]) -> bool:
    kinds = (beside.get("adapter"), beside.get("finetuning_type"))
    return is_on(beside.get("use_peft")) or any(str(kind).lower() in ("lora", "qlora", "oft") for kind in kinds)


def _set_step(
    content: dict[str, Any], system: System, beside: Mapping[str, Any], mean: float | None, differing: list[str]
) -> None:
    """The number of packs in a step: as many tokens as there, over all workers."""
    workers = int(content["cluster"]["workers"].value)
    per_device = (rows_per_step(1, beside) or {}).get("train.packs_per_step", 1)
    total = number(beside.get("batch_size")) if system == "axolotl" else None
    rows = int(total) if total else per_device * workers
    length = int(content["train"]["pack_len_tokens"].value)
    batch = int(number(beside.get("micro_batch_size", beside.get("per_device_train_batch_size"))) or 1)
    is_packed = any(is_on(beside.get(key)) for key in ("sample_packing", "packing", "neat_packing"))
    if is_packed:
        packs, why = rows, f"{rows} packed rows a step on {workers} GPU{'s' if workers > 1 else ''}"
    elif mean is not None:
        packs, why = max(1, round(rows * mean / length)), f"{rows} examples of {mean:.0f} tokens on average, in packs"
        batch = max(1, round(batch * mean / length))
    else:
        packs, why = (
            rows,
            f"too many: {rows} EXAMPLES a step there, and a pack holds several. Divide by the examples in a pack",
        )
        differing.append(f"train.packs_per_step: {rows} examples a step there; the number in a pack is unknown here")
    packs = max(workers, round(packs / workers) * workers)
    content["train"] |= {
        "packs_per_step": Said(packs, why),
        "packs_per_micro_batch": Said(min(batch, packs // workers), "processed at once"),
    }


def _nested(fields: Fields) -> dict[str, Any]:
    """Sections in their usual order; the one stage becomes a list."""
    content: dict[str, Any] = {section: {} for section in _SECTIONS}
    for path, value in fields.items():
        *parents, last = path.split(".")
        node = content
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    stage = content["stages"]["0"]
    stage["optimizer"] = _in_order(stage.get("optimizer", {}), _OF_AN_OPTIMIZER)
    content["stages"] = [_in_order(stage, _OF_A_STAGE)]
    content["run"] = _in_order(content["run"], ("name", "dir"))
    content["data"] = _in_order(content["data"], ("sources",))
    return {section: content[section] for section in content if content[section]}


def _in_order(mapping: Mapping[str, Any], first: tuple[str, ...]) -> dict[str, Any]:
    return {key: mapping[key] for key in (*first, *mapping) if key in mapping}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
