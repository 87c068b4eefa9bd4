"""Part 5: which share of the card's arithmetic training uses (MFU), and what each setting gives.

The arithmetic is counted by `sft.sizing.flops`: recomputation does not count, attention only within examples, the head
only where there is something to learn. The card's is that of its data sheet; of a card that is not known there, what
part 0 measured.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.cases import each
from benchmarks.gpu.ceilings import product_teraflops
from benchmarks.gpu.models import shape_of
from benchmarks.gpu.packs import packs_of
from benchmarks.gpu.part import Row, Setting, Value, at_least
from benchmarks.gpu.switches import all_off, all_on, known
from benchmarks.gpu.timing import seconds_of_step
from benchmarks.gpu.training import (
    LR,
    Workload,
    alone,
    build_config,
    counts_of,
    engine_of,
    has_liger,
    micro_batches,
    settled,
    supervised,
)
from sft.ranks.torch_ranks import TorchRanks
from sft.sizing.flops import training_flops
from sft.sizing.gpus import GPUS, kind_of

GOALS = {"Qwen2.5 0.5B": 0.45, "Qwen2.5 1.5B": 0.50, "Llama 8B, 8 of 32 layers": 0.55}
_SMALLEST = "Qwen2.5 0.5B"
PACK_LEN = 2048
MICRO_TOKENS = (32768, 16384, 8192)
"""In the order of what matters most, should time run out."""
STEP_TOKENS = 32768


class Found(NamedTuple):
    """A measured step."""

    mfu: float | None
    values: dict[str, Value]


def run(setting: Setting) -> Iterator[Row]:
    teraflops = None
    if setting.on_gpu:
        kind = kind_of(torch.cuda.get_device_name())
        teraflops = GPUS[kind].teraflops if kind else product_teraflops(setting)
        yield Row("the card's arithmetic", {"TFLOP/s": teraflops, "from": "its data sheet" if kind else "part 0"})
    best: dict[str, float] = {}
    with alone(setting) as ranks:
        for_goals = partial(_for_goals, setting, ranks, teraflops, best)
        if not setting.small:
            yield from for_goals(MICRO_TOKENS[0])
        yield from _switches(setting, ranks, teraflops)
        if not setting.small:
            for tokens in MICRO_TOKENS[1:]:
                yield from for_goals(tokens)
    for model, mfu in best.items():
        yield Row(f"{model}, best", {"MFU": mfu}, (at_least("MFU", mfu, GOALS[model]),))


def _switches(setting: Setting, ranks: TorchRanks, teraflops: float | None) -> Iterator[Row]:
    """One switch after the other."""
    switches, lacking = known()
    for switch in lacking:
        yield Row(switch.name, {"left out, the config has no": switch.path})
    changes = all_off()
    cases = {"all off": changes}
    for switch in switches[:2] if setting.small else switches:
        if switch.on == "liger" and not has_liger():
            yield Row(switch.name, {"left out": "liger-kernel is not installed"})
            continue
        cases[f"+ {switch.name}"] = {**changes, switch.path: switch.on}
        if switch.is_kept:
            changes = cases[f"+ {switch.name}"]

    def measured(name: str, changes: dict[str, Any]) -> Iterator[Row]:
        yield Row(f"0.5B {name}", measure(setting, ranks, _work(setting, _SMALLEST), changes, teraflops).values)

    yield from each(setting, {name: partial(measured, name, changes) for name, changes in cases.items()}, seconds=5)


def _for_goals(
    setting: Setting, ranks: TorchRanks, teraflops: float | None, best: dict[str, float], tokens: int
) -> Iterator[Row]:
    """Every model with all switches on, and so many tokens a micro-batch."""

    def measured(model: str) -> Iterator[Row]:
        changes = {**all_on(), "train.packs_per_micro_batch": tokens // PACK_LEN}
        found = measure(setting, ranks, _work(setting, model), changes, teraflops)
        best[model] = max(best.get(model, 0.0), found.mfu or 0.0)
        yield Row(f"{model}, {tokens:,} tokens a micro-batch", found.values)

    cases = {f"{model}, {tokens:,} tokens a micro-batch": partial(measured, model) for model in GOALS}
    yield from each(setting, cases, seconds=8)


def _work(setting: Setting, model: str) -> Workload:
    return Workload(model, 24, 2) if setting.small else Workload(model, PACK_LEN, STEP_TOKENS // PACK_LEN)


def measure(
    setting: Setting, ranks: TorchRanks, work: Workload, changes: dict[str, Any], teraflops: float | None
) -> Found:
    """The time of a step, once the allocator and DeepSpeed know what comes."""
    config, shape = settled(setting, build_config(setting, work, changes)), shape_of(setting, work.model)
    packs = packs_of(work.packs_per_step, work.pack_len, shape.vocab_size)
    batches, counts = micro_batches(setting, config, packs), counts_of(packs)
    with engine_of(config, ranks) as engine:
        once = partial(engine.train_step, batches, supervised(batches), LR)
        seconds = seconds_of_step(setting, once)
    mfu = training_flops(shape, counts) / seconds / (teraflops * 1e12) if teraflops else None
    values: dict[str, Value] = {"MFU": mfu, "ms a step": 1000 * seconds, "tokens/s": counts.num_tokens / seconds}
    return Found(mfu, values | _chosen(config))


def _chosen(config: Any) -> dict[str, Value]:
    chosen: Sequence[str] = ("packs_per_micro_batch", "activation_checkpointing")
    return {name: str(getattr(config.train, name)) for name in chosen}
