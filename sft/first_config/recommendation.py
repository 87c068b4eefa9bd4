"""From what is known about data, model and machine to a config to start from: each value with its reason.

A pure function. The numbers are extrapolated from the project's own configs: a starting point, not a tuned optimum.
Where something is unknown, the value is a safe one and a comment says so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sft.config import SftConfig
from sft.config_evaluation import EvaluateConfig
from sft.config_file import build_config
from sft.first_config.commented import Said, without_comments
from sft.first_config.model_survey import ModelFacts
from sft.first_config.source_survey import Survey
from sft.printable import counted
from sft.sizing.advice import advise
from sft.sizing.choice import Gpus, in_words, settle
from sft.sizing.fit import GIB, Job
from sft.sizing.gpus import GPUS, GpuKind

_RATES = ((3e8, 1e-4), (3e9, 2e-5), (2e10, 5e-6))
"""(parameters, learning rate up to there): small models need and tolerate higher rates."""
_LARGE_RATE = 2e-6
_SLOTS = ((3e8, 1 << 15), (3e9, 1 << 16), (2e10, 1 << 17))
_LARGE_SLOTS = 1 << 18
_EPOCHS = ((10_000, 3), (200_000, 2))
_LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_COVERED = 0.99
_LEAST_PACK = 1024
_LEAST_UPDATES = 100
_UNEVEN = 10
_GPUS_PER_NODE = 8
_EVALUATED_EPOCHS = 0.5
_ANSWERS_PER_TASK = 20
_LEAST_MEMORY_GIB = 16
"""Of a GPU whose kind is not known."""


class Machine(NamedTuple):
    """The machine to train on."""

    num_gpus: int
    """0: on CPUs, with one worker."""
    kind: GpuKind | None = None

    @property
    def num_workers(self) -> int:
        """One for each GPU."""
        return max(1, self.num_gpus)

    @property
    def workers_per_node(self) -> int:
        """All are in one node as long as it has at most eight GPUs, as most have."""
        return self.num_workers if self.num_workers <= _GPUS_PER_NODE else math.gcd(self.num_workers, _GPUS_PER_NODE)


class Wanted(NamedTuple):
    """What the user has chosen."""

    name: str
    model: str
    tokenizer: str | None
    tasks: Mapping[str, str | None]
    """Source → the column that names its task; None where the source is one task."""
    has_scores: bool = True
    """Whether the packages that score texts are here."""


def recommend(wanted: Wanted, surveys: Sequence[Survey], facts: ModelFacts, machine: Machine) -> dict[str, Any]:
    """A config to start from, as sections whose values may be `Said`."""
    num_parameters = facts.shape.num_parameters if facts.shape else None
    num_records = sum(survey.num_records for survey in surveys)
    max_len = _max_len(surveys, facts.num_positions)
    least = _LEAST_PACK if facts.num_positions is None else min(_LEAST_PACK, facts.num_positions)
    pack_len = max(max_len.value, least)
    epochs = next((epochs for most, epochs in _EPOCHS if num_records < most), 1)
    packs = _packs_per_step(surveys, num_parameters, (max_len.value, pack_len), epochs, machine.num_workers)
    content: dict[str, Any] = {
        "run": {"name": wanted.name, "dir": Said(f"runs/{wanted.name}", "plan, checkpoints, models, report")},
        "model": {
            "path": Said(wanted.model, _of_model(facts)),
            **({"tokenizer": wanted.tokenizer} if wanted.tokenizer else {}),
            **({} if machine.num_gpus else {"dtype": Said("float32", "not every CPU computes fast in bfloat16")}),
        },
        "data": {
            "sources": [_source(survey, wanted.tasks.get(survey.source.name)) for survey in surveys],
            "max_len_tokens": max_len,
            **_bad_records(surveys),
            "holdout": {"share": Said(*_holdout(num_records))},
        },
        "stages": [
            {
                "name": "sft",
                **_mixture(surveys, wanted.tasks),
                "budget": {
                    "epochs": Said(epochs, f"of about {num_records:,} records; more epochs memorize few records")
                },
                "optimizer": {
                    "lr": Said(*_rate(num_parameters)),
                    "schedule": "cosine",
                    "warmup_ratio": 0.03,
                },
            }
        ],
        "train": {"pack_len_tokens": pack_len, "packs_per_step": packs},
        "checkpoint": {"every_epochs": Said(0.5, "and at the end of the stage")},
        "evaluate": {
            "every_epochs": Said(_EVALUATED_EPOCHS, "besides before and after the stage"),
            "sample_answers": Said(*_sample_answers(facts, machine)),
            **(_answers(surveys, wanted.tasks, epochs, facts, machine) if wanted.has_scores else {}),
        },
        "cluster": _cluster(machine),
        **_slurm(machine),
    }
    content["train"] |= _memory(content, facts, machine)
    return content


def _source(survey: Survey, task: str | None) -> dict[str, Any]:
    source = survey.source
    looked = f"{survey.num_looked:,} read of about {survey.num_records:,}"
    looked = f"all {survey.num_looked:,} read" if survey.num_looked == survey.num_records else looked
    given: dict[str, Any] = {"name": source.name, "path": Said(source.path, f"records: {looked}")}
    given |= {key: value for key in ("split", "subset", "revision") if (value := getattr(source, key))}
    given["format"] = source.format
    if source.columns:
        given["columns"] = dict(source.columns)
    if isinstance(source.task, str):
        given["task"] = source.task
    elif task is not None:
        given["task"] = Said({"column": task}, _tasks(survey.task_columns.get(task, {})))
    elif survey.task_columns:
        columns = ", ".join(survey.task_columns)
        given["task"] = Said(source.name, f"one task; `{{column: NAME}}` takes it from a column, such as {columns}")
    return given


def _tasks(values: Mapping[str, int]) -> str:
    shown = ", ".join(list(values)[:8])
    return f"{len(values)} tasks: {shown}{', …' if len(values) > 8 else ''}" if values else ""


def _max_len(surveys: Sequence[Survey], positions: int | None) -> Said:
    lengths = [length for survey in surveys for length in survey.lengths]
    limit = f"; the model was made for {positions:,}" if positions else ""
    if not lengths:
        length = min(2048, positions or 2048)
        return Said(length, f"how long the examples are is not known: no tokenizer is here{limit}")
    covered = max(survey.length_at(_COVERED) for survey in surveys if survey.lengths)
    length = next((most for most in _LENGTHS if most >= covered), _LENGTHS[-1])
    length = min(length, positions or length)
    longer = sum(one > length for one in lengths)
    what = f"{longer} of {len(lengths):,} are longer and are dropped" if longer else "none of those read is longer"
    return Said(length, f"{what}; the longest has {max(lengths):,} tokens, the mean is {_mean(surveys):.0f}{limit}")


def _mean(surveys: Sequence[Survey]) -> float:
    lengths = [length for survey in surveys for length in survey.lengths]
    return sum(lengths) / len(lengths)


def _bad_records(surveys: Sequence[Survey]) -> dict[str, Any]:
    reasons = [reason for survey in surveys for reason in survey.reasons]
    if not reasons:
        return {}
    return {"bad_records": Said("quarantine", f"{len(reasons)} of those read cannot be used, such as: {reasons[0]}")}


def _holdout(num_records: int) -> tuple[float, str]:
    if num_records < 500:
        return 0.05, "too few records to measure well: better hold out a source of its own (holdout.sources)"
    return (0.05 if num_records < 5000 else 0.02), "never trained on, used to measure"


def _sample_answers(facts: ModelFacts, machine: Machine) -> tuple[int, str]:
    """The answers are generated on one GPU, with two bytes a parameter."""
    if facts.shape and machine.kind and 2 * facts.shape.num_held > GPUS[machine.kind].memory_gib * GIB:
        return 0, "one GPU would generate them, and the model does not fit on it"
    return 4, "held-out prompts, answered by the first and by the last model"


def _answers(
    surveys: Sequence[Survey], tasks: Mapping[str, str | None], epochs: int, facts: ModelFacts, machine: Machine
) -> dict[str, Any]:
    """Answers that are scored, where a GPU writes them and a copy of the model takes little of it."""
    memory_gib = GPUS[machine.kind].memory_gib if machine.kind else _LEAST_MEMORY_GIB
    if not machine.num_gpus or facts.shape is None or 2 * facts.shape.num_held > memory_gib * GIB / 4:
        return {}
    num_records = sum(survey.num_records for survey in surveys)
    num_heldout = _holdout(num_records)[0] * num_records
    num_prompts = min(_ANSWERS_PER_TASK * len(_task_sizes(surveys, tasks)), round(num_heldout))
    num_times = round(epochs / _EVALUATED_EPOCHS) + 1
    num_tokens = num_prompts * EvaluateConfig().max_new_tokens
    text = (
        f"scored by what fits each task (docs/SCORES.md). It costs up to {num_tokens:,} tokens, which the model writes "
        f"one after the other in batches, at each of {num_times} evaluations; 0: none"
    )
    return {"answers_per_task": Said(_ANSWERS_PER_TASK, text)}


def _mixture(surveys: Sequence[Survey], tasks: Mapping[str, str | None]) -> dict[str, Any]:
    """If tasks differ much in size, small ones get a larger share than their size gives them."""
    sizes = _task_sizes(surveys, tasks)
    if len(sizes) < 2 or max(sizes) < _UNEVEN * min(sizes):
        return {}
    why = f"the largest task is about {max(sizes) / min(sizes):,.0f} times the smallest: small ones get a larger share"
    return {"mixture": Said({"rates": "temperature", "temperature": 2.0, "max_epochs_per_task": 4}, why)}


def _task_sizes(surveys: Sequence[Survey], tasks: Mapping[str, str | None]) -> list[float]:
    """The records of each task, about."""
    sizes: list[float] = []
    for survey in surveys:
        column = tasks.get(survey.source.name)
        values = survey.task_columns.get(column, {}) if column else {}
        scale = survey.num_records / max(1, survey.num_looked)
        sizes += [count * scale for count in values.values()] or [survey.num_records]
    return sizes


def _rate(num_parameters: int | None) -> tuple[float, str]:
    if num_parameters is None:
        return 1e-5, "the model's size is not known: 1e-4 below 0.3 billion parameters, 5e-6 at 8, 2e-6 at 70"
    rate = next((rate for most, rate in _RATES if num_parameters <= most), _LARGE_RATE)
    return rate, f"a starting point for {_billions(num_parameters)} parameters; also try half and twice this rate"


def _billions(num_parameters: int) -> str:
    return f"{num_parameters / 1e9:.1f} billion" if num_parameters >= 1e9 else f"{num_parameters / 1e6:.1f} million"


def _packs_per_step(
    surveys: Sequence[Survey], num_parameters: int | None, lengths: tuple[int, int], epochs: int, num_workers: int
) -> Said:
    """As many slots as suit models of that size; fewer where the data would otherwise give too few updates.

    `lengths` are those of the longest example and of a pack.
    """
    max_len, pack_len = lengths
    slots = next((slots for most, slots in _SLOTS if num_parameters and num_parameters <= most), _LARGE_SLOTS)
    slots = slots if num_parameters else _SLOTS[1][1]
    total = sum(survey.num_tokens(max_len) for survey in surveys) * epochs
    enough = min(slots, total / _LEAST_UPDATES) if total else slots
    packs = max(1, round(enough / pack_len / num_workers)) * num_workers
    if not total:
        return Said(packs, f"{packs * pack_len:,} tokens an update at most; `sft prepare` shows the number of updates")
    updates = max(1, round(total / (packs * pack_len)))
    return Said(packs, f"{packs * pack_len:,} tokens an update, about {counted(updates, 'update')} in all")


def _of_model(facts: ModelFacts) -> str:
    known = [facts.family] if facts.family else []
    known += [f"{_billions(facts.shape.num_parameters)} parameters"] if facts.shape else []
    known += [f"{facts.num_positions:,} positions"] if facts.num_positions else []
    return ", ".join(known) or "not on this machine: its size is not known"


def _cluster(machine: Machine) -> dict[str, Any]:
    if not machine.num_gpus:
        return {"workers": 1, "gpus_per_worker": Said(0, "trains on CPUs: --gpus N was not given")}
    gpu: dict[str, Any] = {"gpu": machine.kind} if machine.kind else {}
    if not machine.kind:
        gpu["expected_mfu"] = Said(0.4, f"`gpu: KIND` lets `sft plan` say whether it fits: {', '.join(GPUS)}")
    return {"workers": Said(machine.num_gpus, "one for each GPU"), "gpus_per_worker": 1, **gpu}


def _slurm(machine: Machine) -> dict[str, Any]:
    if machine.workers_per_node == 1:
        return {}
    assumed = "GPUs of a node, as assumed here and by `sft plan`"
    return {"slurm": {"workers_per_node": Said(machine.workers_per_node, assumed)}}


def _memory(content: Mapping[str, Any], facts: ModelFacts, machine: Machine) -> dict[str, Any]:
    """Packs in a pass, and whether activations are recomputed; by the memory of the GPU, if it is known."""
    if not machine.num_gpus:
        return {"activation_checkpointing": "none"}
    if facts.shape is None or machine.kind is None:
        return {"activation_checkpointing": Said("auto", "as few layers compute activations again as the GPU needs")}
    capacity = round(GPUS[machine.kind].memory_gib * GIB)
    gpus = Gpus(machine.num_workers, capacity, machine.num_workers > machine.workers_per_node)
    settled = settle(_as_config(content), facts.shape, 0, gpus)
    job = Job(settled, facts.shape, 0, gpus.num_workers, gpus.between_nodes)
    if job.num_bytes > capacity:
        ways = ", ".join(change.setting for change in advise(job, capacity))
        needed = f"{job.num_bytes / GIB:.0f} of {capacity / GIB:.0f} GiB a GPU, by estimate"
        return {
            "packs_per_micro_batch": Said(
                "auto", f"DOES NOT FIT: {needed}. What helps: {ways or 'a smaller model'}; see `sft plan`"
            )
        }
    return {
        "packs_per_micro_batch": Said("auto", f"by the GPU's memory: {in_words(job, capacity)}"),
        "activation_checkpointing": Said("auto", "less memory for at most a third more arithmetic"),
    }


def _as_config(content: Mapping[str, Any]) -> SftConfig:
    ours = SftConfig.model_fields
    return build_config({key: without_comments(value) for key, value in content.items() if key in ours})
